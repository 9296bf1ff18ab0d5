"""Map and reduce: tasks count the words of a text each, and spread them by their first letter; others add them up."""

from collections import Counter

import actors as ray

VERSES = [
    "the sea is calm tonight the tide is full the moon lies fair",
    "upon the straits on the french coast the light gleams and is gone",
    "the cliffs of england stand glimmering and vast out in the tranquil bay",
    "come to the window sweet is the night air",
]
REDUCERS = 3


@ray.remote
def map_words(text):
    """Returns a counter of the text's words for each reducer."""
    parts = [Counter() for _ in range(REDUCERS)]
    for word in text.split():
        parts[ord(word[0]) % REDUCERS][word] += 1
    return tuple(parts)


@ray.remote
def reduce_words(*counts):
    """Returns the sum of counters."""
    return sum(counts, Counter())


ray.init(num_cpus=2)

mapped = [map_words.options(num_returns=REDUCERS).remote(verse) for verse in VERSES]
reduced = ray.get([reduce_words.remote(*parts) for parts in zip(*mapped, strict=True)])

words = sum(reduced, Counter())
print("words:", sum(words.values()), "different:", len(words))
for word, count in sorted(words.items(), key=lambda item: (-item[1], item[0]))[:5]:
    print(f"{word}: {count}")

ray.shutdown()
