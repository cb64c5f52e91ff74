"""``python -m onecollector.agent``: the resident agent of a host."""

from __future__ import annotations

import asyncio
import signal
import sys

import structlog
from aiohttp import web

from onecollector.agent.api import ensure_token, make_app
from onecollector.agent.host import HostAgent
from onecollector_resources.program_log import log_to_stderr
from onecollector_resources.runtime import RuntimeMissing, load_runtime
from onecollector_resources.settings import SettingsError, load_settings


async def serve() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = load_settings()
    runtime = load_runtime(settings.layout)
    agent = HostAgent(settings, runtime)
    token = ensure_token(settings.layout.agent_token)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await asyncio.to_thread(agent.start)
    runner = web.AppRunner(make_app(agent, token), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", runtime.agent_port).start()
    structlog.get_logger().info("agent.ready", port=runtime.agent_port, host=settings.agent.host_name)
    await stop.wait()
    await runner.cleanup()
    await asyncio.to_thread(agent.stop)


def main() -> int:
    """Exit code 2 where there is nothing to run with."""
    log_to_stderr()
    try:
        asyncio.run(serve())
    except (SettingsError, RuntimeMissing) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
