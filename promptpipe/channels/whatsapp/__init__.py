"""The WhatsApp Cloud API.

Facts about it come from Meta's developer documentation (WhatsApp Business Platform, Cloud API; pages of
October 2025 to September 2026) unless a line says otherwise.
"""

from promptpipe.channels.whatsapp.channel import WhatsAppChannel, WhatsAppConfig

__all__ = ["WhatsAppChannel", "WhatsAppConfig"]
