"""Code of your own beside a layer: what separates happy sentences from sad ones, and a story steered along it."""

import mlx.core as mx

import actors

LAYER = 12
HAPPY = ["What a wonderful day, I am so glad", "She laughed with joy and hugged her friend"]
SAD = ["What a terrible day, I am so sad", "She wept with grief and buried her friend"]


def mean(hidden):
    """The mean of the hidden state over the tokens of this piece; runs on the node that has the layer."""
    return hidden.mean(axis=0)


def states(model, sentences):
    """Returns the mean hidden state after LAYER of some sentences."""
    answers = [model.submit(sentence, max_tokens=1, probe={LAYER: mean}) for sentence in sentences]
    for answer in answers:
        list(answer)
    return mx.stack([answer.probed[LAYER][0] for answer in answers]).mean(axis=0)


with actors.init(local_nodes=2), actors.models.ShardedModel.load(actors.models.demo_model()) as model:
    direction = states(model, HAPPY) - states(model, SAD)
    plain = model.generate("The letter said that", max_tokens=8)
    for strength in (0, 4):
        answer = model.submit(
            "The letter said that",
            max_tokens=8,
            steer={LAYER: lambda hidden, by=strength: hidden + by * direction},
        )
        text = "".join(token.text for token in answer)
        print(f"strength {strength}: the plain text? {text == plain}")
