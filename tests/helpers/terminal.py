"""A small terminal: what a person sees after a program has written to it."""

import io
import re

_CODES = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """Lines of text that carriage returns, movements of the cursor up and erasing change, as rich uses them.

    Attributes:
        lines: from the top; none has scrolled away.
        row, column: of the cursor.
        hidden: whether the cursor is hidden.
    """

    def __init__(self, columns: int = 100):
        self.columns, self.lines = columns, [""]
        self.row = self.column = 0
        self.hidden = False

    def feed(self, text: str) -> "Screen":
        for found in _CODES.finditer(text):
            numbers, code, move, plain = found.groups()
            if plain:
                self._write(plain)
            elif move == "\r":
                self.column = 0
            elif move == "\n":
                self._down()
            elif code == "A":
                self.row = max(0, self.row - int(numbers or 1))
            elif code == "K":
                assert numbers == "2", "the whole line"
                self.lines[self.row] = ""
            elif code in "hl":
                assert numbers == "?25", found.group()
                self.hidden = code == "l"
            else:
                assert code == "m", found.group()
        return self

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.lines):
            self.lines.append("")

    def _write(self, text: str) -> None:
        for character in text:
            if self.column == self.columns:
                self._down()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    @property
    def text(self) -> str:
        """The lines, without spaces at their ends."""
        return "\n".join(line.rstrip() for line in self.lines)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:
        return "utf-8"

    def screen(self, columns: int = 100) -> Screen:
        """What is seen of all that was written."""
        return Screen(columns).feed(self.getvalue())
