"""What a protocol module answers before HTTP is made of it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """Status and JSON body; body None sends none. Kept out of ``repr``: it may hold tokens."""

    status: int
    body: dict[str, Any] | None

    def __repr__(self) -> str:
        return f"<Reply {self.status}>"


class RefusalError(Exception):
    """An OAuth error reply (RFC 6749 5.2). ``description`` None leaves the field out."""

    def __init__(self, status: int, error: str, description: str | None = None) -> None:
        super().__init__(f"{status} {error}: {description}")
        self.status = status
        self.error = error
        self.description = description

    def bare(self) -> Reply:
        """Only the status, as systems answer that document no error words."""
        return Reply(self.status, None)

    def reply(self) -> Reply:
        body = {"error": self.error}
        if self.description is not None:
            body["error_description"] = self.description
        return Reply(self.status, body)
