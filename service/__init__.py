"""The gateway: takes frames over gRPC, batches them to Triton, returns them enlarged.

A frame's way is one line: rpc -> codec -> frames -> scheduler -> triton, and back. `app` puts the parts together.
"""
