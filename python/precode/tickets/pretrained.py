"""A folder with a ticket and its card, as repositories of the Hugging Face hub are laid out; nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from precode._internal.errors import PrecodeFileError
from precode._internal.files import write_atomically

if TYPE_CHECKING:
    from precode.tickets.ticket import Ticket

TICKET, CARD = "ticket.safetensors", "README.md"
"""The files in the folder."""

HEAD = '---\nlibrary_name: "precode"\n'
"""How our cards begin; one of the user's own is left alone."""


def save(ticket: Ticket, folder: str) -> None:
    """Writes the folder; see `Ticket.save_pretrained`."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        ticket.save(place / TICKET)
        if not (place / CARD).exists() or (place / CARD).read_text(encoding="utf-8", errors="replace").startswith(HEAD):
            write_atomically(place / CARD, card(ticket))
    except PrecodeFileError:
        raise
    except OSError as error:
        raise PrecodeFileError(f"{place}: cannot be written: {error.strerror or error}") from error


def card(ticket: Ticket) -> str:
    """The model card: metadata of the hub in YAML, of which JSON is a part, and what the ticket is in words."""
    about = {
        "tags": ["precode", "lottery-ticket", "pruning", "sparsity"],
        "precode": {"method": ticket.method, "density": ticket.density, "kept": ticket.kept, "total": ticket.total},
    }
    head = "\n".join(f"{name}: {json.dumps(value)}" for name, value in about.items())
    rows = "\n".join(
        f"| `{name}` | {' × '.join(map(str, mask.shape))} | {int(mask.sum())} | {float(mask.float().mean()):.4g} |"
        for name, mask in ticket.masks.items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in ticket.versions.items())
    return f"""{HEAD}{head}
---

# A lottery ticket

{ticket.kept} of {ticket.total} weights are kept, chosen by `{ticket.method}` ({versions}).

```python
import precode as pc

ticket = pc.Ticket.from_pretrained(folder)  # where this file is
ticket.apply_(module)  # of the parameters that the ticket was found for
```

| tensor | shape | kept | density |
|---|---|---|---|
{rows}
"""
