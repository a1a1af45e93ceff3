"""Pure: a token's life as a bar, SVG that stretches with the page. What it shows is said in words beside it too."""

from proxy.admin.page.facts import Identity
from proxy.admin.page.markup import Markup, join, tag
from proxy.admin.page.words import away, span

_FAR = 2.0  # lifetimes; what lies farther ahead would squeeze the bar


def bar(identity: Identity, now: float) -> Markup | None:
    """From the token's issue to its end, or to now where that is later; None for a token without a known end."""
    if identity.issued is None or identity.expires is None or identity.expires <= identity.issued:
        return None
    start, expires = min(identity.issued, now), identity.expires
    end = max(expires, now)
    due = identity.next_refresh
    if due is not None and end < due <= expires + _FAR * (expires - start):
        end = due

    def x(at: float) -> str:
        return f"{100 * (min(max(at, start), end) - start) / (end - start):.2f}%"

    def stretch(begin: float, stop: float, name: str) -> Markup | None:
        width = f"{100 * (min(stop, end) - max(begin, start)) / (end - start):.2f}%"
        return tag("rect", x=x(begin), width=width, y=10, height=12, rx=2, class_=name) if stop > begin else None

    def mark(at: float | None, name: str, path: str) -> Markup | None:
        if at is None or not start <= at <= end:
            return None
        return tag(
            "svg",
            tag("path", d=path, class_=name),
            x=x(at),
            y=0,
            width=1,
            height=32,
            overflow="visible",
            aria_hidden="true",
        )

    return tag(
        "svg",
        join(
            stretch(start, expires, "left"),
            stretch(due, expires, "window") if due is not None and now <= due < expires else None,
            stretch(start, min(now, expires), "spent"),
            tag("line", x1=x(expires), x2=x(end), y1=16, y2=16, class_="dead") if end > expires else None,
            mark(identity.session_ends, "session", "M-4 1h8v8h-8z"),
            mark(due, "due", "M0 22l5.5 9h-11zM-1 10h2v12h-2z"),
            mark(expires, "end", "M-1 6h2v20h-2z"),
            mark(now, "now", "M0 10l-5.5 -9h11zM-1 10h2v12h-2z"),
        ),
        class_="bar",
        role="img",
        width="100%",
        height=32,
        aria_label=_words(identity, now, due),
    )


def _words(identity: Identity, now: float, due: float | None) -> str:
    """For those who do not see it."""
    issued, expires = identity.issued or now, identity.expires or now
    if now < expires:
        spent = f"{100 * max(now - issued, 0) / (expires - issued):.0f} % of {span(expires - issued)} are over"
        words = f"Life of the token: {spent}, it ends {away(expires, now)}"
    else:
        words = f"The token's life of {span(expires - issued)} ended {away(expires, now)}"
    return f"{words}; next refresh {away(due, now)}" if due is not None else words
