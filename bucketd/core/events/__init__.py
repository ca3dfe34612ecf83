"""Deliver changes to subscribers: the hub, subscriptions, and Server-Sent Events."""

from .hub import Hub
from .subscription import EventFilter, Subscription

__all__ = ["EventFilter", "Hub", "Subscription"]
