"""A tree of actors: each supervisor makes its own workers, tells them what to do and gathers what they found."""

import actors as ray


@ray.remote(num_cpus=0)
class Worker:
    """Counts primes."""

    def count_primes(self, first, last):
        """Returns how many primes there are from first to last, without last."""
        return sum(1 for n in range(max(first, 2), last) if all(n % d for d in range(2, int(n**0.5) + 1)))


@ray.remote(num_cpus=0)
class Supervisor:
    """Has workers of its own, which end with it."""

    def __init__(self, name, workers):
        self.name = name
        self.workers = [Worker.remote() for _ in range(workers)]

    def work(self, first, last):
        """Splits a range among the workers; returns the sum of their counts."""
        step = -(-(last - first) // len(self.workers))
        parts = [
            worker.count_primes.remote(start, min(start + step, last))
            for worker, start in zip(self.workers, range(first, last, step), strict=False)
        ]
        return sum(ray.get(parts))

    def describe(self):
        """Returns who this is and how many work for it."""
        return self.name, len(self.workers)


ray.init(num_cpus=2)

supervisors = [Supervisor.remote(name, workers=2) for name in ("north", "south")]
print(ray.get([supervisor.describe.remote() for supervisor in supervisors]))

north, south = supervisors
counts = ray.get([north.work.remote(0, 5000), south.work.remote(5000, 10_000)])
print("primes below 5000 and 10000:", counts[0], sum(counts))

ray.shutdown()
