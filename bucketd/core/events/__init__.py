"""Changes on their way to subscribers: the hub, subscriptions, and Server-Sent Events."""
