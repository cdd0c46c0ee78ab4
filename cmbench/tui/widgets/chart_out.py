"""What leaves a chart: its values for the clipboard, and the chart as a file."""

import asyncio
import re
from pathlib import Path

from textual import work

from cmbench.errors import UsageError
from cmbench.text import plain
from cmbench.tui.screens.confirm import Ask
from cmbench.tui.widgets.chart_keys import ChartKeys
from cmbench.views import chart_file


class ChartOut(ChartKeys):
    """A chart whose values can be taken elsewhere, but for its drawing; arguments as `ChartKeys` takes them."""

    @property
    def drawing(self) -> chart_file.Drawing:
        """What is in sight."""
        low, high = map(self.x_scale.inverse, self._x_ends())
        strength = self.strength
        return chart_file.Drawing(
            self.title, self.x_title, self._lines, self.scale, self.x_scale, (low, high), strength, self.bands
        )

    def values(self) -> str:
        """Return the values at the cursor, or the last of each line, in full: a line of text for each."""
        found = []
        for line in self._lines:
            i = self.row_at_cursor(line)
            i = len(line.x) - 1 if i is None else i
            if i >= 0:
                place = (self.x_name or self.x_label)(float(line.x[i]))
                found.append(plain(f"{line.label} {place} {float(line.mean[i])!r}"))
        return "\n".join(found)

    def action_copy(self) -> None:
        """Copy the values at the cursor, or the last ones: the terminal takes them by OSC 52, over SSH too."""
        if text := self.values():
            self.app.copy_to_clipboard(text)
            self.notify(f"copied, where the terminal allows it: {text}", timeout=3, markup=False)

    @work(exclusive=True, group="export")
    async def action_export(self) -> None:
        """Ask for the name of a file, and write the chart there."""
        if not self._lines:
            return
        name = re.sub(r"[^A-Za-z0-9]+", "_", self.title).strip("_") or "chart"
        question = "Write this chart to a file; its name ends in .png, .svg or .csv"
        text, wrong = f"{name}.png", ""
        while text := ((await self.app.push_screen_wait(Ask(question, text, wrong))) or "").strip():
            try:
                path = Path(text).expanduser()
                await asyncio.to_thread(chart_file.write, self.drawing, path)
            except (UsageError, RuntimeError, OSError, ValueError) as error:
                wrong = plain(str(error))
            else:
                self.notify(plain(f"written: {path.absolute()}"), markup=False)
                return
