"""Show what a Trio program is doing: every task, who owns it, and the line it waits at."""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType

import trio

# A chain of awaits deeper than this ends in library code that tells nothing more.
MAX_FRAMES = 4


def render_task_tree(root: trio.lowlevel.Task) -> list[str]:
    """Return one line per task and nursery below *root*, indented by ownership.

    A task's line says where it waits: its own code first, then the awaits that lead inward.
    """
    return list(_render_task(root, ""))


def _render_task(task: trio.lowlevel.Task, indent: str) -> Iterator[str]:
    yield f"{indent}{task.name.removeprefix('session_proxy.')}  {_where(task)}"
    for number, nursery in enumerate(task.child_nurseries):
        children = sorted(nursery.child_tasks, key=lambda child: child.name)
        count = "1 task" if len(children) == 1 else f"{len(children)} tasks"
        yield f"{indent}  nursery {number} ({count})"
        for child in children:
            yield from _render_task(child, f"{indent}    ")


def _where(task: trio.lowlevel.Task) -> str:
    if task is trio.lowlevel.current_task():
        return "(this dump)"
    places = [_place(frame, line) for frame, line in task.iter_await_frames()]
    own = [index for index, place in enumerate(places) if not place.startswith("trio.")]
    if own:
        # Of Trio's frames at the end the first says what is waited for, but for the end of a nursery: the
        # children below are that. The others are how Trio waits.
        last = own[-1] + 1
        places = places[:last] + [place for place in places[last : last + 1] if "trio._core" not in place]
    if len(places) > MAX_FRAMES:
        places = [*places[: MAX_FRAMES // 2], "…", *places[-MAX_FRAMES // 2 :]]
    return " > ".join(places)


def _place(frame: FrameType, line: int) -> str:
    return f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_qualname}"
