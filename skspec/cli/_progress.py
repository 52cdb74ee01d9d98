"""What is said while a command runs: bars on a terminal, else lines."""

from __future__ import annotations

import sys
import time

from skspec.cli._errors import has_package

EVERY = 10.0  # seconds between lines about a long fit


def progress_bars():
    return RichProgress() if sys.stderr.isatty() and has_package("rich") else PlainProgress()


class PlainProgress:
    """A line on stderr for every step, and for long ones every ten seconds."""

    latest = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def say(self, text):
        print(f"{text} ...", file=sys.stderr, flush=True)

    def __call__(self, name, done, total, doing):
        if done == 0:
            self.start = time.perf_counter()
        if done == total:
            doing = f"{doing} in {time.perf_counter() - self.start:.1f} s"
        if done != int(done):
            if time.perf_counter() - self.latest < EVERY:
                return
            done, doing = int(done), f"{doing}, {100 * (done % 1):.0f} %"
        self.latest = time.perf_counter()
        print(f"[{done}/{total}] {name}: {doing}", file=sys.stderr, flush=True)


class RichProgress:
    """A bar for every method, with the time it has taken."""

    def __enter__(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[doing]}"),
            console=Console(stderr=True),
        )
        self.bars.start()
        self.tasks, self.step = {}, None
        return self

    def __exit__(self, *_):
        self._end_step()
        self.bars.stop()
        return False

    def say(self, text):
        self._end_step()
        self.step = self.bars.add_task(text, total=None, doing="")

    def _end_step(self):
        if self.step is not None:
            self.bars.update(self.step, total=1, completed=1)
        self.step = None

    def __call__(self, name, done, total, doing):
        self._end_step()
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=total, doing=doing)
        self.bars.update(self.tasks[name], completed=done, doing=doing)
