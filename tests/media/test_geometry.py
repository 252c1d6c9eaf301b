import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specsem.media.geometry import Orientation, crop_boxes, mirror_index

SIZES = st.integers(1, 3000)


@given(SIZES, SIZES, st.integers(1, 512), st.integers(0, 12))
def test_boxes_lie_inside_or_around(width: int, height: int, side: int, n: int) -> None:
    boxes = crop_boxes(width, height, side, n)
    assert boxes.shape == (n, 4)
    assert (boxes[:, 2:] - boxes[:, :2] == side).all()
    for low, high, length in ((0, 2, width), (1, 3, height)):
        if length >= side:
            assert (boxes[:, low] >= 0).all()
            assert (boxes[:, high] <= length).all()
            assert (boxes[:, low] % 2 == 0).all()
        else:
            assert (boxes[:, low] <= 0).all()
            assert (boxes[:, high] >= length).all()


def test_known_places() -> None:
    assert crop_boxes(1280, 720, 224, 1).tolist() == [[528, 248, 752, 472]]
    assert crop_boxes(1280, 720, 224, 2)[:, :2].tolist() == [[208, 248], [848, 248]]
    assert crop_boxes(720, 1280, 224, 2)[:, :2].tolist() == [[248, 208], [248, 848]]
    assert crop_boxes(1280, 720, 224, 4)[:, :2].tolist() == [[208, 68], [848, 68], [208, 428], [848, 428]]
    five = crop_boxes(1280, 720, 224, 5)
    assert five.tolist() == crop_boxes(1280, 720, 224, 4).tolist() + crop_boxes(1280, 720, 224, 1).tolist()
    assert crop_boxes(100, 224, 224, 1).tolist() == [[-62, 0, 162, 224]]


@given(st.integers(2, 60), st.integers(0, 300), st.integers(0, 300))
def test_mirror_is_numpys_reflect(length: int, before: int, after: int) -> None:
    axis = np.arange(length)
    assert (mirror_index(-before, length + after, length) == np.pad(axis, (before, after), "reflect")).all()


def matrix(a: int, b: int, c: int, d: int) -> bytes:
    return np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], np.int32).tobytes()


ALL = [Orientation(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)]


@pytest.mark.parametrize(
    ("numbers", "degrees", "mirrored"),
    [
        ((1, 0, 0, 1), 0, False),
        ((0, 1, -1, 0), 90, False),
        ((-1, 0, 0, -1), 180, False),
        ((0, -1, 1, 0), 270, False),
        ((-1, 0, 0, 1), 0, True),
    ],
)
def test_orientation_of_a_matrix(numbers: tuple[int, int, int, int], degrees: int, mirrored: bool) -> None:
    turn = Orientation.from_matrix(matrix(*numbers))
    assert (turn.degrees, turn.mirrored) == (degrees, mirrored)
    # A clockwise quarter turn brings the top left corner to the top right.
    frame = np.zeros((4, 6, 3), np.uint8)
    frame[0, 0] = 1
    y, x = np.argwhere(turn.apply(frame)[..., 0])[0]
    corner = {0: (0, 0), 90: (0, 3), 180: (3, 5), 270: (5, 0)}[degrees]
    assert (y, x) == ((0, 5) if mirrored else corner)


def test_an_unusable_matrix_turns_nothing() -> None:
    assert Orientation.from_matrix(b"") == Orientation()
    assert Orientation.from_matrix(bytes(36)) == Orientation()


@pytest.mark.parametrize("turn", ALL)
def test_a_stored_box_is_the_displayed_box(turn: Orientation) -> None:
    stored = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    shown = turn.apply(stored)
    width, height = turn.size(60, 40)
    assert shown.shape == (height, width, 3)
    x0, y0, x1, y1 = box = (4, 6, 20, 30)
    a, b, c, d = turn.stored_box(box, width, height)
    assert (turn.apply(stored[b:d, a:c]) == shown[y0:y1, x0:x1]).all()
