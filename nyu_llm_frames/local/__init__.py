"""The embedded gateway: a loopback server that behaves like the gateway.

Comes in: the HTTP calls that NYU documents. Goes out: answers of a small model on this computer,
of any OpenAI-compatible server, or an echo. It shares no code with the client side of the
package, so that a misread protocol cannot hide on both sides.
"""
