"""An automation that logs in once and resumes its session in every later task iteration.

bucketctl run --device phone-1 --job login -- python examples/login_session.py

Run it twice: the first run logs in, the second resumes. It needs the package
``bucketd-client`` and nothing else.
"""

import secrets
import sys
import time

from bucketd_client import agent

USER = "demo-user"


def log_in(user: str) -> str:
    """Return a session token. A real automation would log in on the phone here."""
    return f"{user}:{secrets.token_hex(16)}"


def work(session_token: str) -> None:
    """Do the work of the automation, which is only a check of the token here."""
    if not session_token.startswith(f"{USER}:"):
        sys.exit("login: the app refuses the session")


def main() -> None:
    stored = agent.utils.bucket.get()
    if not stored.success:
        sys.exit(f"login: cannot use the bucket: {stored.error}")

    if stored.bucket.get("loggedIn") and stored.bucket.get("sessionToken"):
        print("login: resuming the stored session, no login needed")
        work(stored.bucket["sessionToken"])
        return

    print(f"login: no session stored, logging in as {USER}")
    session_token = log_in(USER)
    now_ms = round(time.time() * 1000)
    result = agent.utils.bucket.set(
        {"sessionToken": session_token, "loggedIn": True, "loginTimestamp": now_ms}
    )
    if not result.success:
        sys.exit(f"login: cannot use the bucket: {result.error}")
    print(f"login: session stored (revision {result.revision})")
    work(session_token)


if __name__ == "__main__":
    main()
