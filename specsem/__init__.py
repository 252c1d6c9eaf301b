"""SpecSem tells AI-generated video from camera video.

Importing this package costs nothing: the decoder's child process imports ``specsem.media`` and must not pay
for torch. Import what you need from its module, e.g. ``from specsem.scorer import Scorer``.
"""

__version__ = "0.1.0"
