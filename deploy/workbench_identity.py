"""Who uses JupyterLab behind a proxy that signs people in; loaded by JupyterLab alone."""

from __future__ import annotations

from typing import Any

from jupyter_server.auth.identity import IdentityProvider, User

from deploy.workbench import signed_in


class ProxyIdentity(IdentityProvider):  # type: ignore[misc]  # jupyter_server is in the image of workbenches alone
    """Lets in requests that show the server's token by HTTP Basic, as the proxy before it sends it.

    They count as those of a browser and not as those of a token: JupyterLab goes on asking for its own page as their
    origin, because the cookie of the proxy comes with whatever a browser sends.
    """

    def get_user(self, handler: Any) -> User | None:
        """The person, or None."""
        name = signed_in(handler.request.headers.get("Authorization", ""), self.token)
        return User(name) if name else None
