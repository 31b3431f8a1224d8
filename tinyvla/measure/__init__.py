"""Chapter 9 (speed): how long training and answering take, measured so that it can be compared.

bench          time to 95 % direction accuracy
plain_recipe   the same task, written as one would at first
throughput     a step's time, and what the device could do
latency        how long a policy takes to answer
cold           from the start of Python to a trained policy
"""
