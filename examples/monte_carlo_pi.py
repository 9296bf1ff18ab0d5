"""Pi by throwing darts: tasks throw them, and an actor is told how far they are."""

import math
import random
import time

import actors as ray


@ray.remote
class ProgressActor:
    """Knows how many samples each task has drawn."""

    def __init__(self, total):
        self.total = total
        self.drawn = {}

    def report_progress(self, task_id, drawn):
        """Notes how far a task is."""
        self.drawn[task_id] = drawn

    def get_progress(self):
        """Returns the share of all samples that is drawn."""
        return sum(self.drawn.values()) / self.total


@ray.remote
def sampling_task(samples, task_id, progress_actor):
    """Returns how many of the samples are in the circle."""
    inside = 0
    throw = random.Random(task_id)
    for i in range(samples):
        if math.hypot(throw.uniform(-1, 1), throw.uniform(-1, 1)) <= 1:
            inside += 1
        if (i + 1) % 50_000 == 0:
            progress_actor.report_progress.remote(task_id, i + 1)
    return inside


ray.init(num_cpus=2)

TASKS = 4
SAMPLES = 200_000
progress_actor = ProgressActor.remote(TASKS * SAMPLES)
results = [sampling_task.remote(SAMPLES, i, progress_actor) for i in range(TASKS)]

seen = [0.0]
while seen[-1] < 1:
    seen.append(ray.get(progress_actor.get_progress.remote()))
    time.sleep(0.05)
print("progress:", "only forward" if seen == sorted(seen) else "went back", f"to {seen[-1]:.0%}")

pi = 4 * sum(ray.get(results)) / (TASKS * SAMPLES)
print(f"pi is about {pi:.4f}")

ray.shutdown()
