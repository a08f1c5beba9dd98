"""Train the shipped network: float first, then quantized with the float network as teacher.

    python examples/fashion/train.py --data fashion-mnist -o model.hwq

About ten minutes on two cores. Needs ``pip install hwq[train]``. Another machine or torch release rounds floats
differently, so the weights differ; the accuracy should be within 0.3 points.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F

import hwq
from hwq import interp
from hwq.data import load_images
from hwq.models.fashion import CLASSES, network
from hwq.quant import InputSpec

BITS = {"conv1": "dfp:b=8", "conv2": "dfp:b=4", "conv3": "dfp:b=4", "conv4": "dfp:b=2", "fc": "dfp:b=4"}
BATCH = 128


def batches(images, labels, shift):
    """Yield augmented batches: flips, and shifts of up to two pixels if asked."""
    order = torch.randperm(len(images))
    for k in range(len(images) // BATCH):
        index = order[k * BATCH:(k + 1) * BATCH]
        x = InputSpec().encode(images[index])
        flip = torch.rand(BATCH) < 0.5
        x[flip] = x[flip].flip(3)
        if shift:
            down, right = np.random.randint(-2, 3, 2)
            x = torch.roll(F.pad(x, (2, 2, 2, 2)), (int(down), int(right)), (2, 3))[:, :, 2:-2, 2:-2]
        yield x, labels[index]


def train(model, images, labels, epochs, rate, decay, warm, loss, shift, after_epoch=lambda epoch: None):
    """SGD with momentum and a one-cycle schedule."""
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=decay, nesterov=shift)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * (len(images) // BATCH), pct_start=warm)
    for epoch in range(epochs):
        model.train()
        for x, y in batches(images, labels, shift):
            optimizer.zero_grad()
            value = loss(model, x, y)
            value.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {float(value.detach()):.3f}", flush=True)
        after_epoch(epoch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="fashion-mnist", help="folder of IDX files")
    parser.add_argument("-o", "--output", default="model.hwq")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float-epochs", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    np.random.seed(options.seed)
    torch.set_num_threads(1)
    images, labels = (torch.tensor(np.array(a)) for a in load_images(options.data, "train"))
    labels = labels.long()

    teacher = network()
    train(teacher, images, labels, options.float_epochs, 0.1, 5e-4, 0.15, lambda m, x, y: F.cross_entropy(m(x), y), shift=True)
    teacher.eval()

    samples = [InputSpec().encode(images[i:i + 500]) for i in range(0, 2000, 500)]
    model = hwq.prepare(teacher, samples[0][:8], BITS, activations="dfp:b=4")
    hwq.calibrate(model, samples)

    def loss(m, x, y):
        with torch.no_grad():
            target = F.softmax(teacher(x) / 2, 1)
        logits = m(x)
        return 0.5 * F.cross_entropy(logits, y) + 2 * F.kl_div(F.log_softmax(logits / 2, 1), target, reduction="batchmean")

    def settle(epoch):
        if epoch == 1:                                   # formats follow the weights for two epochs, then stand
            hwq.calibrate(model, samples)
            hwq.freeze(model)

    train(model, images, labels, options.epochs, 0.02, 1e-5, 0.1, loss, shift=False, after_epoch=settle)
    graph = hwq.convert(model, (28, 28, 1), name="fashion", classes=CLASSES)
    hwq.save(graph, options.output)

    pictures, truth = load_images(options.data, "test")
    classes = interp.predict(graph, interp.run_batches(graph, interp.encode_images(graph, pictures)))
    print(f"{options.output}: {int((classes == truth).sum())} of {len(truth)} test images right")


if __name__ == "__main__":
    main()
