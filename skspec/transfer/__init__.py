"""What carries models from one domain to another: synthetic to observed, survey to survey."""

__all__ = []
