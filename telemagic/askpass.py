"""What sudo runs to get a password: it passes the question on to the notebook and prints the answer.

Run by path with ``python -I askpass.py SOCKET PROMPT``, so that nothing of telemagic is imported: the question should
appear at once. The password travels over a Unix socket in a private directory and over the pipe to sudo, and is
nowhere else. No answer means that the user cancelled, or that the notebook was killed: exit code 1, and sudo gives up.
In the second case nobody but us can remove the directory that we were found in.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

MAX_PROMPT = 4096  # bytes; what the launcher reads of a prompt
MAX_PASSWORD = 1024  # bytes; sudo itself takes 255


def ask(path: str, prompt: str) -> bytes:
    """Send the prompt to the socket and return the answer, empty if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(path)
        sock.sendall(prompt.encode(errors="replace")[:MAX_PROMPT])
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while len(answer) <= MAX_PASSWORD and (data := sock.recv(MAX_PASSWORD)):
            answer += data
    return answer


def tidy(path: str) -> None:
    """Remove what `telemagic.passwords` has made round the socket; it may be doing so itself at this moment."""
    directory = os.path.dirname(path)
    with contextlib.suppress(OSError):
        os.unlink(path)
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(directory, "askpass"))
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def main(argv: list[str]) -> int:
    """Run as sudo's askpass; the exit code."""
    answer = b""
    with contextlib.suppress(OSError):  # the notebook has gone
        answer = ask(argv[1], argv[2] if len(argv) > 2 else "Password:")
    if not answer:
        tidy(argv[1])
        return 1
    os.write(1, answer + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
