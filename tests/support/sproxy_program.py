"""Be ``sproxy``: ``python -m tests.support.sproxy_program``, which needs no quotes in a ProxyCommand."""

from __future__ import annotations

from session_proxy.cli.main import main

if __name__ == "__main__":
    main()
