"""Stream transformers that a graph is compiled with: what they push to named channels is custom output of the run.

LangGraph (1.2) runs them in ``astream_events(version="v3")`` alone, which hands out no outputs of supersteps. So the
items of a run's stream are given to LangGraph's own mux here. Its channels write to a log with one reader; they are
wired to the reports instead. The mux, and this method of its channels, have no public names.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from langgraph.pregel import Pregel


class GraphTransformers:
    """The transformers of ``graph`` in one run. ``on_item`` gets a channel's name, and what is pushed to it."""

    def __init__(self, graph: Pregel[Any, Any, Any, Any], on_item: Callable[[str, Any], None]) -> None:
        factories = list(getattr(graph, "stream_transformers", ()))
        self.modes: set[str] = set()
        """Stream modes that they need."""
        self._mux: Any = None
        if not factories:
            return
        from langgraph.stream import StreamChannel
        from langgraph.stream._mux import StreamMux

        made: list[Any] = []

        def make(factory: Any, scope: tuple[str, ...]) -> Any:
            made.append(factory(scope))
            return made[-1]

        self._mux = StreamMux(factories=[functools.partial(make, one) for one in factories], is_async=True)
        self.modes.update(mode for one in made for mode in one.required_stream_modes)
        for key, value in self._mux.extensions.items():
            if isinstance(value, StreamChannel) and value.name and key not in self._mux.native_keys:
                value._wire(functools.partial(on_item, value.name))  # noqa: SLF001  see above

    async def take(self, namespace: tuple[str, ...], mode: str, data: Any) -> None:
        """Give an item of the run's stream to the transformers."""
        if self._mux is not None:
            about = {"namespace": list(namespace), "timestamp": int(time.time() * 1000), "data": data}
            await self._mux.apush({"type": "event", "method": mode, "params": about})

    async def aclose(self) -> None:
        """End the transformers; they may push their last items."""
        if self._mux is not None:
            await self._mux.aclose()

    async def fail(self, error: BaseException) -> None:
        """End the transformers of a run that failed."""
        if self._mux is not None:
            await self._mux.afail(error)
