"""A stand-in for Meta: the Cloud API's send endpoint, signed webhooks, people with phones, and faults on demand.

It is a program of its own, keeps everything in memory, and serves loopback only.
"""
