"""What a cell shows besides figures and checks: players that need no kernel, and tables."""

import json
import re
import struct
import zlib

import pytest

from onepath.page import FramePlayer, FrameSlider, Rows, table


def picture(shade: int) -> bytes:
    """A grey PNG of 4×2 pixels, made by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = (b"\0" + bytes([shade]) * 4) * 2
    head = struct.pack(">IIBBBBB", 4, 2, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture
def player() -> FramePlayer:
    frames, readouts = (picture(0), picture(255)), ("t = 0", "t = 1")
    return FramePlayer(frames, ("a <dark> one", "a light one"), readouts, "Shade")


def test_a_player_shows_the_first_picture_at_half_its_size_with_its_words(player):
    page = player._repr_mimebundle_()["text/html"]
    assert 'alt="a &lt;dark&gt; one"' in page and 'width="2" height="1"' in page
    assert 'max="1"' in page and 'aria-valuetext="t = 0"' in page


def test_two_players_of_one_page_do_not_share_an_identity(player):
    first, second = (player._repr_mimebundle_()["text/html"] for _ in range(2))
    assert first != second


def test_a_player_wants_words_for_every_picture(player):
    with pytest.raises(ValueError, match="as many alts and readouts as frames"):
        FramePlayer(player.frames, ("one",), player.readouts, "Shade")


def test_a_second_slider_has_a_row_of_pictures_for_each_readout(player):
    frames, alts = tuple(picture(k) for k in range(6)), tuple(f"picture {k}" for k in range(6))
    rows = Rows(("η = 0", "η < 1", "η = 1"), "Noise level")
    page = FramePlayer(frames, alts, player.readouts, "Shade", rows=rows)._repr_mimebundle_()
    text = page["text/html"]
    assert text.count('type="range"') == 2 and 'aria-label="Noise level"' in text
    assert 'max="1"' in text and 'max="2"' in text and 'aria-valuetext="η = 0"' in text
    assert player._repr_mimebundle_()["text/html"].count('type="range"') == 1
    assert json.loads(re.search(r"rows\] = (\[.*\]);", text)[1])[3] == ["η = 0", "η < 1", "η = 1"]


@pytest.mark.parametrize("count", [2, 4, 7])
def test_rows_of_pictures_are_complete(player, count):
    rows = Rows(("η = 0", "η = 1", "η = 2"), "Noise level")
    frames, alts = tuple(picture(k) for k in range(count)), ("words",) * count
    with pytest.raises(ValueError, match=f"got {count} frames, {count} alts, 2 readouts in 3 rows"):
        FramePlayer(frames, alts, player.readouts, "Shade", rows=rows)


def test_jupyters_slider_refuses_rows(player):
    rows = Rows(("η = 0", "η = 1"), "Noise level")
    grid = FramePlayer(player.frames * 2, player.alts * 2, player.readouts, "Shade", rows=rows)
    with pytest.raises(ValueError, match="one row of pictures; show the player itself"):
        FrameSlider(grid)


def test_a_slider_is_a_widget_where_there_are_widgets_and_a_player_elsewhere(player, monkeypatch):
    import ipywidgets

    view = "application/vnd.jupyter.widget-view+json"
    bundle = FrameSlider(player)._repr_mimebundle_()
    assert view in bundle and "frame-player" in bundle["text/html"]
    assert bundle["text/plain"] == "FrameSlider: Shade, 2 pictures"
    monkeypatch.delattr(ipywidgets, "Stack")
    assert view not in FrameSlider(player)._repr_mimebundle_()


def test_a_table_is_aligned_in_text_and_escaped_in_html():
    shown = table(("name", "value"), [("a<b", 0.123456), ("long name", 2.0)])
    assert str(shown) == "name       value\na<b        0.123\nlong name  2"
    assert "a&lt;b" in shown._repr_mimebundle_()["text/html"]
