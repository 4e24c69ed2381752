"""PromptPipe: long conversations over WhatsApp that survive anything."""

__version__ = "0.1.0"
