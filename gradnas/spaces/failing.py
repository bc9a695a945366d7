"""In which operation of which choice an error was raised."""

from __future__ import annotations

from torch import nn

from gradnas.choice import Choice


def place_of(error: BaseException, net: nn.Module) -> str | None:
    """The innermost choice, its operation and the module that an error comes from.

    Such as `in choice 'block1', operation 'conv 1x1' (module block1.operations.conv 1x1.0)`; None
    for an error from outside of all choices.

    Args:
        net: that was run, whose paths are told.
    """
    paths = {id(module): path for path, module in net.named_modules()}
    choice: Choice | None = None
    operation = ""
    module = ""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        owner = frame.f_locals.get("self")
        if isinstance(owner, Choice):
            if frame.f_code is Choice._output.__code__:
                choice = owner
                operation = frame.f_locals["key"]
                module = ""
        elif choice is not None and id(owner) in paths:
            module = paths[id(owner)]
        trace = trace.tb_next
    if choice is None:
        return None
    at = f" (module {module})" if module else ""
    return f"in choice {choice.name!r}, operation {operation!r}{at}"


def note_place(error: Exception, net: nn.Module) -> None:
    """Add the place to the notes of an error, below its traceback; nothing outside of choices."""
    place = place_of(error, net)
    if place is not None and place not in getattr(error, "__notes__", ()):
        error.add_note(place)
