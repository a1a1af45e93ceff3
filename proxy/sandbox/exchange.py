"""One call of a token system over HTTP: counted, kept, then met by a fault or handled. The same for every system."""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from proxy.sandbox.faults import CANNED, Fault, take
from proxy.sandbox.misbehave import UNDATED, canned, close, finish
from proxy.sandbox.replies import Reply
from proxy.sandbox.state import SandboxState, TokenCall

_NO_STORE: Mapping[str, str] = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Exchange:
    """``sleep`` takes seconds and passes the time of a fault's delay. dated_errors: whether they carry a ``Date``."""

    def __init__(
        self, state: SandboxState, sleep: Callable[[float], Awaitable[None]], *, dated_errors: bool = True
    ) -> None:
        self._state = state
        self._sleep = sleep
        self._dated_errors = dated_errors

    async def answer(
        self,
        request: web.Request,
        call: TokenCall,
        handle: Callable[[], Awaitable[Reply]],
        reject: Callable[[Fault], Reply],
    ) -> web.StreamResponse:
        """The answer of ``handle`` or of the fault this call meets. reject: how the system words a refusal."""
        self._note(call)
        fault = take(self._state.faults[call.operation], call.grant)
        if fault is not None:
            self._state.counters[f"faults_{call.operation}"] += 1
            self._state.record("fault", endpoint=call.operation, fault=fault.kind, grant=call.grant)
            if fault.pause:
                await self._sleep(fault.pause)
            if fault.kind in CANNED:
                return canned(fault, self._state.now())
            if fault.kind == "close":
                return close(request)
            if fault.kind == "reject":
                return await self.send(request, None, reject(fault))
        reply = await handle()
        if fault is not None and fault.kind == "late":
            await self._sleep(fault.delay_ms / 1000)
        return await self.send(request, fault, reply)

    async def send(self, request: web.Request, fault: Fault | None, reply: Reply) -> web.StreamResponse:
        request[UNDATED] = reply.status >= 400 and not self._dated_errors
        return await finish(request, fault, reply.status, reply.body, _NO_STORE)

    def _note(self, call: TokenCall) -> None:
        """Count and keep the attempt."""
        self._state.counters[f"{call.operation}_requests"] += 1
        if call.grant:
            self._state.counters[f"{call.operation}_requests_{call.grant}"] += 1
        self._state.token_calls.append(call)


def certificate_name(request: web.Request) -> str:
    """The common name of the caller's TLS certificate; "" when the listener asked for none, or got none."""
    certificate = request.get_extra_info("peercert") or {}
    names = (pair for relative in certificate.get("subject", ()) for pair in relative)
    return next((str(value) for name, value in names if name == "commonName"), "")
