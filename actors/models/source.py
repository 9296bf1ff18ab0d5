"""Where a model is, by what a user calls it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.exceptions import ModelError

from .checkpoint import describe
from .extra import require_mlx_lm
from .smol import demo_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from .hub import HubName, Listing

DEMO: Final = "demo"
"""The name of the demo's model."""


def locate(model: str, on_progress: Callable[[str], None] | None = None) -> str:
    """What a model is called: its file or directory, or its name on the hub with a commit.

    It is looked at, too, so that what is wrong with it is said before anything is started.

    Args:
        model: a path, `"demo"` for the demo's model, or what it is called on the Hugging Face hub; see `on_hub`.
        on_progress: told in plain words what is going on while a model is fetched.

    Raises:
        ModelError: there is no such model, it cannot be fetched, or it is damaged or of a kind that is not known.
    """
    path = demo_model(on_progress) if model == DEMO else Path(model).expanduser()
    if not path.exists() and (found := on_hub(model, on_progress)) is not None:
        name, path = found
    elif not path.exists():
        raise ModelError(
            f"there is no file or directory {model}. A model is a .gguf file, a directory of mlx-lm or Hugging Face, "
            f"the id of one on the hub (name/model), or {DEMO!r}"
        )
    else:
        name = str(path)
    describe(path)
    return name


def whereabouts(model: str | Path, weights: str) -> tuple[str, Path]:
    """What nodes are to call a model, and where it is here: at least all but its weights.

    Args:
        model: a path, as this program or another node sees it, or a name on the hub.
        weights: see `ShardedModel.load`.

    Raises:
        ModelError: the hub has no such model, or it cannot be fetched.
        ValueError: it is on the hub, and nodes are to read a path.
        TypeError: it is neither a text nor a path.
    """
    from .holders import headers
    from .hub import is_on_hub

    if not isinstance(model, str | Path):
        raise TypeError(f"a model is a path, or a name on the Hugging Face hub, not {model!r}")
    path, away = Path(model).expanduser().absolute(), is_on_hub(str(model))  # the stages run in other folders
    if away and weights == "local":
        raise ValueError(f"weights='local' has each node read the model at a path, and {model} is none")
    if path.exists() or weights == "local":
        return str(path), path
    there = None if away else headers(path)
    found = on_hub(str(model)) if there is None else None
    return found or (str(path), there or path)


def on_hub(model: str, on_progress: Callable[[str], None] | None = None) -> tuple[str, Path] | None:
    """A model on the Hugging Face hub, whose headers, configuration and tokenizer are fetched.

    Where the hub cannot be reached it is what was fetched last, and where the hub's own cache here has all of it, it is
    there and nothing is fetched.

    Args:
        model: such as `"mlx-community/Qwen3-0.6B-4bit"`, with `hf://` before it, `@` and a revision, or `/` and one
            `.gguf` file behind it.
        on_progress: told in plain words how large it is.

    Returns:
        What nodes are to call it, and where it is here: at least all but its weights. None where `model` is more
        likely a path.

    Raises:
        ModelError: the hub has no such model, or it cannot be fetched, or `model` begins as a name and is none.
    """
    from .hub import HubName, Listing, is_on_hub, remembered, skeleton

    name = HubName.read(model)
    if name is None and is_on_hub(model):
        raise ModelError(f"{model} is no name of a model on the hub: hf://organisation/model[@revision][/file.gguf]")
    if name is None or (not is_on_hub(model) and Path(model).expanduser().parent.exists()):
        return None
    require_mlx_lm()
    try:
        listing = Listing.ask(name)
    except ModelError as error:
        if (cached := _cached(name, None)) is not None:
            return str(cached), cached
        if error.__cause__ is not None and (last := remembered(name)) is not None and _is_away(error.__cause__):
            return str(last), skeleton(last)
        raise ModelError(
            f"there is no file or directory {model}, and no model of that name could be fetched from the Hugging Face "
            f"hub: {error}"
        ) from error
    if (cached := _cached(listing.name, listing)) is not None:
        return str(cached), cached
    if on_progress is not None:
        size = f"{sum(file.size for file in listing.files) / 1e9:.1f} GB"
        on_progress(f"{listing.name.repo} on the hub: {size}, of which each node fetches what it lacks of its layers")
    return str(listing.name), skeleton(listing.name)


def _is_away(error: BaseException) -> bool:
    """The hub said nothing, rather than that it does not give the model."""
    from huggingface_hub.errors import HfHubHTTPError

    return not isinstance(error, HfHubHTTPError)


def _cached(name: HubName, listing: Listing | None) -> Path | None:
    """Where the hub's own cache has all of a model, if it does; without a listing, all that its own index names."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name.repo, revision=name.revision, local_files_only=True))
        path = folder if name.file is None else folder / name.file
        if listing is None:
            describe(path)
        elif not all((folder / file.name).exists() for file in listing.files):
            return None
    except Exception:  # its client raises its own, and a part of a model is none
        return None
    return path
