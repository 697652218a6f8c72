"""Shows a connect while it happens: one self-updating card in a notebook, one line per phase elsewhere."""

from __future__ import annotations

import getpass
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from telemagic import cards

if TYPE_CHECKING:
    from collections.abc import Callable

    from telehelper.errors import TelemagicError
    from telehelper.messages import PhaseChanged, Status

    from telemagic.progress import Progress

STANDING: Final = 32  # cards that are changed at the end; of more, the last ones
ROOT_NOTE: Final = (
    "sudo starts the part that makes the network device, routes and name resolution, and undoes them at the end; "
    "an empty line cancels."
)


class Viewer(Protocol):
    """Who is told how a connect goes; every method is called in the thread that waits for it."""

    shown: bool  # whether the user has the result before his eyes already
    display: Any  # where; IPython's DisplayHandle, or None

    def begin(self, progress: Progress) -> None:
        """Take the progress to show; it changes in place."""

    def tick(self) -> None:
        """Take note that it takes long enough for people to notice (`progress_after`)."""

    def changed(self, change: PhaseChanged) -> None:
        """Take one change, already in the progress."""

    def asking(self) -> None:
        """Take note that the user is about to be asked for the password."""

    def connected(self, status: Status, seconds: float, notices: tuple[str, ...]) -> None:
        """Take the good end."""

    def failed(self, error: TelemagicError | None) -> None:
        """Take the bad end; None when the user interrupted."""


class Silent:
    """Shows nothing; hands each change to `on_phase` when there is one."""

    def __init__(self, on_phase: Callable[[PhaseChanged], None] | None = None) -> None:
        self.shown = False
        self.display: Any = None
        self._on_phase = on_phase

    def begin(self, progress: Progress) -> None:
        """Nothing to show."""

    def tick(self) -> None:
        """Nothing to show."""

    def changed(self, change: PhaseChanged) -> None:
        """Hand it on."""
        if self._on_phase is not None:
            self._on_phase(change)

    def asking(self) -> None:
        """Nothing to show."""

    def connected(self, status: Status, seconds: float, notices: tuple[str, ...]) -> None:
        """Nothing to show."""

    def failed(self, error: TelemagicError | None) -> None:
        """Nothing to show: the exception says it."""


class Lines(Silent):
    """One line per finished phase, for terminals and pipes."""

    def __init__(self, out: TextIO | None = None) -> None:
        super().__init__()
        self._out = out or sys.stdout
        self._progress: Progress | None = None

    def begin(self, progress: Progress) -> None:
        """Say where to."""
        self._progress = progress
        self._say(f"Connecting to {cards.printable(progress.context)}")

    def changed(self, change: PhaseChanged) -> None:
        """Say what is over."""
        if self._progress is not None and change.state in {"done", "failed"}:
            self._say(cards.step_line(self._progress.steps[change.phase]))

    def asking(self) -> None:
        """Say what root is for, above the prompt."""
        self._say(f"  {ROOT_NOTE}")

    def _say(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()


class LiveCard(Silent):
    """One display of a notebook that changes in place; appears once connecting takes long enough to notice."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None

    def begin(self, progress: Progress) -> None:
        """Remember what to show."""
        self._progress = progress

    def tick(self) -> None:
        """Appear."""
        self._draw(appear=True)

    def changed(self, change: PhaseChanged) -> None:
        """Redraw."""
        self._draw(appear=False)

    def asking(self) -> None:
        """Appear above the password prompt."""
        if self._progress is not None:
            self._progress.note = ROOT_NOTE
        self._draw(appear=True)

    def connected(self, status: Status, seconds: float, notices: tuple[str, ...]) -> None:
        """Turn into the compact card, if it appeared at all."""
        if self.display is not None:
            self.display.update(cards.connected(status, seconds, notices))
            self.shown = True

    def failed(self, error: TelemagicError | None) -> None:
        """Say which phase failed; the error itself follows as the cell's error output."""
        if self.display is not None and self._progress is not None:
            self._progress.note = "" if error is not None else "interrupted; everything begun was undone"
            self.display.update(cards.progress(self._progress, failed=True))

    def _draw(self, *, appear: bool) -> None:
        if self._progress is None or (self.display is None and not appear):
            return
        card = cards.progress(self._progress)
        if self.display is None:
            from IPython.display import display  # late: scripts never need it

            self.display = display(card, display_id=True)
        else:
            self.display.update(card)


class Standing:
    """The cards of one connection that stand in a notebook: at its end they must not go on saying "connected"."""

    def __init__(self) -> None:
        self._displays: deque[Any] = deque(maxlen=STANDING)

    def add(self, display: Any) -> None:  # noqa: ANN401  # IPython's DisplayHandle, which is untyped
        """Take a card that is there already."""
        self._displays.append(display)

    def show(self, card: cards.Card) -> None:
        """Show a card that can change later."""
        from IPython.display import display  # late: scripts never need it

        self._displays.append(display(card, display_id=True))

    def turn_into(self, card: cards.Card) -> None:
        """Change all of them, for good; from any thread."""
        # Two may come at once, who leaves and who has found the helper gone: each card turns once.
        turning, self._displays = self._displays, deque(maxlen=STANDING)
        for display in turning:
            display.update(card)


class Prompt:
    """Asks for a password with getpass: in a notebook in the cell, in a terminal on the terminal."""

    def __init__(self, viewer: Viewer) -> None:
        self.refusal = ""
        self._viewer = viewer

    def __call__(self, prompt: str) -> str | None:
        """Return the password; None when the line was empty or nobody can be asked (`refusal` says why)."""
        self._viewer.asking()
        try:
            return getpass.getpass(cards.printable(prompt.strip()) + " ") or None
        except EOFError:
            self.refusal = "the password prompt met the end of the input"
        except RuntimeError as error:
            # ipykernel's StdinNotImplementedError is one; its import would tie this file to one kind of kernel.
            self.refusal = (
                f"sudo needs a password, and this front end cannot ask for one ({str(error).rstrip('.')})"
            )
        return None


def can_ask(shell: object) -> bool:
    """Whether a password can be asked for: a notebook kernel, or a terminal on standard input."""
    return is_kernel(shell) or (sys.stdin is not None and sys.stdin.isatty())


def is_kernel(shell: object) -> bool:
    """Whether this shell belongs to a Jupyter kernel, whose front end shows rich output."""
    return getattr(shell, "kernel", None) is not None


def current_shell() -> Any:  # noqa: ANN401  # IPython is untyped
    """Return IPython's shell, or None in plain Python; never imports IPython."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def viewer_for(shell: object, on_phase: Callable[[PhaseChanged], None] | None = None) -> Viewer:
    """Choose how a connect shows itself here; a script's output is its own, so there it stays silent."""
    if on_phase is not None or (shell is None and not hasattr(sys, "ps1")):
        return Silent(on_phase)
    return LiveCard() if is_kernel(shell) else Lines()
