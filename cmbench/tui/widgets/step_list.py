"""The steps of a run, one per line, the newest last."""

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option


class StepList(OptionList, can_focus=False):
    """A list of lines that redraws only the lines that changed."""

    DEFAULT_CSS = """
    StepList { width: 28; height: 1fr; margin: 0 1 0 0; padding: 0; border: none; text-wrap: nowrap; }
    """

    def show(self, lines: Sequence[str], chosen: int) -> None:
        """Show these lines and mark one of them."""
        old = [str(option.prompt) for option in self.options]
        if list(lines[: len(old)]) != old:
            if len(lines) < len(old):
                self.clear_options()
                old = []
            for i, (before, after) in enumerate(zip(old, lines, strict=False)):
                if before != after:
                    self.replace_option_prompt_at_index(i, Content(after))
        self.add_options(Option(Content(line)) for line in lines[len(old) :])
        if lines and self.highlighted != chosen:
            self.highlighted = chosen
