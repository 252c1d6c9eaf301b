"""Decoding of untrusted files: only what a model needs, in a child process that may die."""

from specsem.media.types import Clip, Coverage, Limits, MediaInfo, SamplePlan, Window

__all__ = ["Clip", "Coverage", "Limits", "MediaInfo", "SamplePlan", "Window"]
