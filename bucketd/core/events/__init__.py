"""Deliver changes to subscribers: the hub, subscriptions, and Server-Sent Events."""

from .hub import Hub
from .notification import View
from .subscription import EventFilter, Subscription

__all__ = ["EventFilter", "Hub", "Subscription", "View"]
