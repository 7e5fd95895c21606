"""Which frames are inferred when, where and with which network: pure logic.

It opens no sockets, starts no tasks and reads no clock; whoever calls says what time it is, so that a simulation drives
the very same classes as the gateway.

    jobs        a frame to be inferred, the batch it is in, the executor with its plan
    clock       how long batches take
    shares      who has had more than a fair share
    executors   all there are: who is idle, who is done soonest
    sizes       how large batches must become to keep up with the demand
    offline     frames that nobody waits for
    feedback    what cannot be known beforehand, learnt from what happens
    planner     puts a frame into a plan, or refuses it; begins batches
    ladder      which networks a session's frames may be answered by
"""
