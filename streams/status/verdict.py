"""What a page says first: one line on how things are, and what there is to know about it. Pure."""

from typing import Any, Literal, NamedTuple

Level = Literal["unknown", "trouble", "busy", "well"]

#: What has waited longer is late.
_LATE_S = 1800.0


class Verdict(NamedTuple):
    """``title`` is one line; ``notes`` are sentences, the most pressing first."""

    level: Level
    title: str
    notes: list[str]


def verdict(view: dict[str, Any]) -> Verdict:
    """Of a view as :class:`streams.status.lookout.Lookout` puts it together."""
    if not view["looked"]:
        return Verdict("unknown", "Looking …", [])
    notes = _troubles(view)
    waiting, batches = view["validate"]["waiting"], view["dispatch"]["waiting"]
    if notes:
        return Verdict("trouble", notes[0], [*notes[1:], *_waiting(view)])
    if waiting or batches or view["files"]["behind"]:
        return Verdict("busy", _when(view["caught_up_s"]), _waiting(view))
    open_letters = view["rejected"]["letters"]
    rest = f"{open_letters:,} dead letters are open" if open_letters else "No dead letter is open"
    return Verdict("well", "Everything is in", [rest])


def _troubles(view: dict[str, Any]) -> list[str]:
    found = []
    if view["error"]:
        found.append(f"Kafka does not answer: {view['error']}")
    avstar = view["avstar"]
    if avstar and avstar["breaker"] != "closed":
        found.append("Avstar is down: what is to be booked waits, nothing is lost")
    urgent = view["airing"][0]
    if urgent["waiting"] or urgent["dead"]:
        spots = urgent["waiting"] + urgent["dead"]
        which = _many(spots, "spot that airs", "spots that air")
        found.append(f"{which} in this hour or the next: not booked")
    found += [
        f"Nearly all of {held} is refused, so the flood guard holds it: the log says why"
        for role in view["roles"]
        for held in role["held"]
    ]
    found += [f"The role {role['role']} does not answer" for role in view["roles"] if not role["answers"]]
    for stage in ("validate", "dispatch"):
        if (view[stage]["oldest_s"] or 0) > _LATE_S:
            found.append(f"The oldest of what waits for {stage} has waited {spell(view[stage]['oldest_s'])}")
    return found


def _waiting(view: dict[str, Any]) -> list[str]:
    notes = []
    if records := view["validate"]["waiting"]:
        notes.append(f"{_many(records, 'record waits', 'records wait')} for validation")
    if batches := view["dispatch"]["waiting"]:
        notes.append(f"{_many(batches, 'batch waits', 'batches wait')} for Avstar")
    return notes


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "Working; when it has caught up cannot be told yet"
    return f"Working: caught up in about {spell(max(seconds, 1))}"


def _many(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def spell(seconds: float) -> str:
    """``40 s``, ``4 min``, ``3 h 10 min``, ``2 d 3 h``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
