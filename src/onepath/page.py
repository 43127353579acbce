"""What a cell shows besides figures and checks: tables, and pictures with a slider.

`FramePlayer` steps through pictures that were drawn beforehand. It is plain HTML and works in a web
page, in Colab and in any notebook, without a kernel or a library. `FrameSlider` is the same with
Jupyter's own widgets, whose slider a reader can link to cells of his own. Pictures that are
computed while the slider moves are not covered: a page has no kernel.
"""

import base64
import html
import itertools
import json
import struct
import zlib
from dataclasses import dataclass
from string import Template

_serial = itertools.count()

_PLAYER = Template("""<div class="frame-player" id="$id" role="group" aria-label="$label">
<style>
.frame-player { margin: 1rem 0; max-width: 100%; }
.frame-player img { display: block; max-width: 100%; height: auto; background: #fff; }
.frame-player .controls { display: flex; align-items: center; gap: 0.75rem; margin-top: 0.4rem;
  max-width: ${width}px; }
.frame-player input { flex: 1; min-width: 5rem; accent-color: #0072b2; }
.frame-player output { min-width: 6ch; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.frame-player button { min-width: 2.75rem; min-height: 2rem; font: inherit; color: inherit;
  background: none; border: 1px solid currentColor; border-radius: 4px; cursor: pointer; }
.frame-player button::before { content: "▶" / ""; }
.frame-player button[aria-pressed=true]::before { content: "❚❚" / ""; }
.frame-player .spacer { min-width: 2.75rem; }
.frame-player button span { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
@media (prefers-reduced-motion: reduce) {
  .frame-player button, .frame-player .spacer { display: none; }
}
@media print { .frame-player .controls { display: none; } }
</style>
<img src="$first" alt="$alt" width="$width" height="$height">
<div class="controls">
<button type="button" aria-pressed="false"><span>Play $label</span></button>
<input type="range" min="0" max="$last" step="1" value="0" aria-label="$label"
  aria-valuetext="$readout">
<output aria-live="off">$readout</output>
</div>$second
<script>
(() => {
  const root = document.getElementById("$id");
  const [sources, alts, readouts, rows] = $data;
  const [img, button] = ["img", "button"].map((tag) => root.querySelector(tag));
  const [range, across] = root.querySelectorAll("input");
  const row = () => (across ? Number(across.value) : 0);
  let timer = 0;
  const tell = (slider, text) => {
    slider.setAttribute("aria-valuetext", text);
    slider.nextElementSibling.textContent = text;
  };
  const show = (k) => {
    const frame = row() * readouts.length + k;
    img.src = sources[frame];
    img.alt = alts[frame];
    range.value = k;
    tell(range, readouts[k]);
    if (across) tell(across, rows[row()]);
  };
  const play = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(step, $interval) : 0;
    button.setAttribute("aria-pressed", String(on));
  };
  const step = () => {
    const next = Number(range.value) + 1;
    if (next < readouts.length && root.isConnected && !document.hidden) show(next);
    else play(false);
  };
  button.addEventListener("click", () => {
    if (timer) return play(false);
    if (Number(range.value) === readouts.length - 1) show(0);
    play(true);
  });
  for (const slider of root.querySelectorAll("input")) {
    slider.addEventListener("input", () => {
      if (slider === range) play(false);
      show(Number(range.value));
    });
  }
})();
</script></div>""")

_SECOND = Template("""
<div class="controls"><span class="spacer"></span>
<input type="range" min="0" max="$last" step="1" value="0" aria-label="$label"
  aria-valuetext="$readout">
<output aria-live="off">$readout</output>
</div>""")


@dataclass(frozen=True)
class Rows:
    """The second slider of a player: one row of pictures for each of its readouts.

    Args:
        readouts: what stands beside the slider, "η = 0.5".
        label: the name of the slider, "Noise level".
    """

    readouts: tuple[str, ...] = ("",)
    label: str = ""


@dataclass(frozen=True)
class FramePlayer:
    """Pictures with a slider and a play button, as plain HTML: no kernel, no library, no network.

    The slider answers to the arrow keys, Home and End; playing stops at the last picture, when the
    slider is moved and when the page is hidden. A reader who asks for reduced motion gets the
    slider alone. With `rows` there is a second slider, which changes the row; playing goes on along
    the new one.

    Args:
        frames: PNG pictures of one size, at twice the size at which they are shown; row by row.
        alts: what each picture shows, in words.
        readouts: what stands beside the slider, "t = 0.25"; one for each picture of a row.
        label: the name of the player and of its first slider, "Particles of the flow".
        interval: milliseconds from one picture to the next.
        rows: the second slider, if there is one.
    """

    frames: tuple[bytes, ...]
    alts: tuple[str, ...]
    readouts: tuple[str, ...]
    label: str
    interval: int = 250
    rows: Rows = Rows()

    def __post_init__(self) -> None:
        rows = len(self.rows.readouts)
        sizes = {len(self.frames), len(self.alts), len(self.readouts) * rows}
        if len(sizes) > 1 or not self.frames:
            raise ValueError(
                "a player has as many alts and readouts as frames, in each of its rows, and at "
                f"least one of each, got {len(self.frames)} frames, {len(self.alts)} alts, "
                f"{len(self.readouts)} readouts in {rows} rows."
            )

    def __repr__(self) -> str:
        return f"FramePlayer: {self.label}, {len(self.frames)} pictures"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        sources = [_source(frame) for frame in self.frames]
        texts = [sources, self.alts, self.readouts, self.rows.readouts]
        data = json.dumps(texts).replace("<", "\\u003c")
        width, height = _shown_size(self.frames[0])
        page = _PLAYER.substitute(
            id=f"player-{zlib.crc32(self.label.encode()):08x}-{next(_serial)}",
            label=html.escape(self.label),
            first=sources[0],
            alt=html.escape(self.alts[0]),
            readout=html.escape(self.readouts[0]),
            width=width,
            height=height,
            last=len(self.readouts) - 1,
            interval=self.interval,
            data=data,
            second=self._second(),
        )
        return {"text/plain": repr(self), "text/html": page}

    def _second(self) -> str:
        if len(self.rows.readouts) == 1:
            return ""
        readout, label = (html.escape(t) for t in (self.rows.readouts[0], self.rows.label))
        last = len(self.rows.readouts) - 1
        return _SECOND.substitute(last=last, label=label, readout=readout)


@dataclass(frozen=True)
class FrameSlider:
    """The pictures of a player under Jupyter's own slider, to which a reader can link widgets.

    `jslink` runs without a kernel, so the page moves too. There is no `Play` widget: in a page
    without a kernel it moves the slider and leaves the picture. The pictures are HTML widgets,
    because an Image widget has no place for the alternative text. Where there are no widgets, or
    only those before ipywidgets 8, the player stands in.
    """

    player: FramePlayer

    def __post_init__(self) -> None:
        if len(self.player.rows.readouts) > 1:
            raise ValueError("Jupyter's slider moves one row of pictures; show the player itself.")

    def __repr__(self) -> str:
        return f"FrameSlider: {self.player.label}, {len(self.player.frames)} pictures"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        import ipywidgets  # needed here only, and not by a program that draws no sliders

        still = self.player._repr_mimebundle_() | {"text/plain": repr(self)}
        if not hasattr(ipywidgets, "Stack"):
            return still
        pictures = zip(self.player.frames, self.player.alts)
        stack = ipywidgets.Stack(
            [ipywidgets.HTML(_picture(frame, alt)) for frame, alt in pictures], selected_index=0
        )
        slider = ipywidgets.SelectionSlider(
            options=[(text, k) for k, text in enumerate(self.player.readouts)],
            description=self.player.label,
            style={"description_width": "initial"},
            layout={"width": "min(100%, 30rem)"},
        )
        ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
        return ipywidgets.VBox([slider, stack])._repr_mimebundle_() | still


@dataclass(frozen=True)
class Table:
    """A table that a cell shows: aligned text for the notebook, HTML for the page."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        lines = [self.head, *self.rows]
        widths = [max(len(line[k]) for line in lines) for k in range(len(self.head))]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        cells = lambda line, tag: "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in line)
        head = cells(self.head, 'th scope="col"').replace('</th scope="col">', "</th>")
        body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows)
        parts = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        markup = f'<table class="table">{parts}</table>'
        return {"text/plain": str(self), "text/html": markup}


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> Table:
    """A table of what was computed; numbers are shown with three significant digits."""
    shown = lambda c: f"{float(f'{c:.3g}'):g}" if isinstance(c, float) else str(c)
    return Table(head, tuple(tuple(shown(c) for c in row) for row in rows))


def _picture(frame: bytes, alt: str) -> str:
    width, height = _shown_size(frame)
    return (
        f'<img src="{_source(frame)}" alt="{html.escape(alt)}" width="{width}" height="{height}">'
    )


def _source(frame: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(frame).decode()


def _shown_size(frame: bytes) -> tuple[int, int]:
    """Half of the width and height in the header of a PNG: pictures are drawn at twice their
    size."""
    width, height = struct.unpack(">II", frame[16:24])
    return width // 2, height // 2
