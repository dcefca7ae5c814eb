"""The real Portkey gateway from npm, with a stand-in for Google behind it."""
