"""Learns to play a small Atari game: deep Q-learning (DQN) on MinAtar, trained with Graves's RMSprop.

    python train_dqn.py                         Breakout, in about ten minutes
    python train_dqn.py --game space_invaders   or asterix, freeway, seaquest
    python train_dqn.py --game my_module:Game   a game of your own, with the methods of minatar.Environment
    python train_dqn.py --resume                goes on after Ctrl-C, with bit-identical results
    python train_dqn.py --optimizer adam        for comparison

The optimizer and the loss are DeepMind's (Mnih and others, 2015). The network, the replay memory and the schedule are
from MinAtar's examples/dqn.py (Young and Tian, arXiv 1903.03176), which trains for 5,000,000 frames. A run of this
example is 25 times shorter, so the share of random actions falls in 50,000 frames instead of 100,000. MinAtar's script
uses PyTorch's centered RMSprop, which adds eps outside the root, and takes the mean of the loss instead of the sum.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import math
import os
import sys
import tempfile

# With one thread the results do not depend on the number of cores. More threads would not speed up such small arrays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rmsprop_graves import RMSpropGraves  # isort: split

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer.training import Updater, extensions
from interruptible import InterruptibleTrainer, PlotReport, PrintReport

NEEDS = "This example needs MinAtar and matplotlib: pip install '.[dqn]'"
try:
    import matplotlib
    from PIL import Image
except ImportError as error:
    sys.exit(f"{error}. {NEEDS}")

GAMES = ["asterix", "breakout", "freeway", "seaquest", "space_invaders"]

BATCH = 32
DISCOUNT = 0.99
LOWEST_EPSILON = 0.1
MEMORY = 100_000  # transitions to sample from
LONGEST = 300  # frames of the animated episode
TARGET_INTERVAL = 1_000  # steps between two updates of the target network

# DeepMind's values. eps is in units of squared gradient, and as in their code the loss is a sum over the batch.
DEEPMINDS = {"lr": 2.5e-4, "alpha": 0.95, "eps": 0.01}
OPTIMIZERS = {
    "graves": (RMSpropGraves, {**DEEPMINDS, "momentum": 0}),
    "chainer": (chainer.optimizers.rmsprop_graves.RMSpropGraves, {**DEEPMINDS, "momentum": 0}),
    "rmsprop": (chainer.optimizers.RMSprop, {**DEEPMINDS, "eps_inside_sqrt": True}),
    "adam": (chainer.optimizers.Adam, {"alpha": 2.5e-4}),
    "momentum": (chainer.optimizers.MomentumSGD, {"lr": 1e-4, "momentum": 0.9}),
}


class QNetwork(chainer.Chain):
    """Takes states of shape (batch, channels, height, width), returns the value of every action."""

    def __init__(self, state_shape, n_actions):
        super().__init__()
        channels, height, width = state_shape
        with self.init_scope():
            self.conv = L.Convolution2D(channels, 16, ksize=3)
            self.hidden = L.Linear(16 * (height - 2) * (width - 2), 128)
            self.output = L.Linear(128, n_actions)

    def forward(self, x):
        """Computes the values."""
        return self.output(F.relu(self.hidden(F.relu(self.conv(x)))))

    def best_action(self, state):
        """Returns the action with the highest value in one state."""
        with chainer.no_backprop_mode():
            return int(self(self.device.send(state[None].astype("f"))).array.argmax())


class Player:
    """Plays a game, episode after episode.

    The random numbers of an episode depend only on the seed and the episode's number. So a snapshot needs only that
    number and the actions so far to restore the game.
    """

    def __init__(self, game, *seed):
        self.game = game
        self.seed = seed
        self.start(0)

    def start(self, episode):
        """Starts an episode by its number."""
        self.episode = episode
        self.game.seed(int(numpy.random.RandomState([*self.seed, episode]).randint(2**31)))
        self.game.last_action = 0  # MinAtar's reset() does not reset it
        self.game.reset()
        self.actions = []
        self.score = 0

    def state(self):
        """Returns the state, boolean and of shape (channels, height, width)."""
        return numpy.moveaxis(self.game.state(), 2, 0)

    def act(self, action):
        """Plays one frame, returns the reward and whether the episode has ended."""
        self.actions.append(action)
        reward, is_end = self.game.act(action)
        self.score += reward
        return reward, is_end

    def serialize(self, serializer):
        """Saves the actions of the current episode, or plays them again."""
        episode = int(serializer("episode", self.episode))
        if isinstance(serializer, chainer.Deserializer):
            self.start(episode)
            for action in serializer("actions", None).tolist():
                self.act(action)
        else:
            serializer("actions", numpy.array(self.actions, "i"))


class ReplayMemory:
    """Holds the newest transitions. It stores each state once, as bits."""

    def __init__(self, state):
        self.state_shape = state.shape
        # The newest state has no transition yet.
        self.states = numpy.zeros((MEMORY + 1, math.ceil(state.size / 8)), "u1")
        self.actions = numpy.zeros(MEMORY + 1, "i")
        self.rewards = numpy.zeros(MEMORY + 1, "f")
        self.is_end = numpy.zeros(MEMORY + 1, bool)
        self.count = 0
        self.states[0] = numpy.packbits(state)

    def append(self, action, reward, is_end, next_state):
        """Adds a transition from the newest state."""
        newest = self.count % len(self.states)
        self.actions[newest], self.rewards[newest], self.is_end[newest] = action, reward, is_end
        self.count += 1
        self.states[self.count % len(self.states)] = numpy.packbits(next_state)

    def sample(self, random):
        """Returns states, actions, rewards, ends and next states of a batch of transitions, drawn uniformly."""
        drawn = self.count - 1 - random.randint(min(self.count, MEMORY), size=BATCH)
        i = drawn % len(self.states)
        bits = self.states[numpy.concatenate([i, (drawn + 1) % len(self.states)])]
        states = numpy.unpackbits(bits, axis=1, count=math.prod(self.state_shape)).astype("f")
        states = states.reshape(2, BATCH, *self.state_shape)
        return states[0], self.actions[i], self.rewards[i], self.is_end[i], states[1]

    def serialize(self, serializer):
        """Saves or loads all transitions."""
        self.count = int(serializer("count", self.count))
        for name in ("states", "actions", "rewards", "is_end"):
            serializer(name, getattr(self, name))


class DQNUpdater(Updater):
    """Plays one frame and takes one step of deep Q-learning in each iteration.

    Before the first iteration it plays some frames at random to fill the replay memory.

    Args:
        optimizer: An optimizer, set up with a `QNetwork`.
        player: Plays the game.
        seed: The seed of the random actions and of the samples of the replay memory.
        start: The number of frames that are played at random before the first iteration.
        exploration: The number of iterations in which the share of random actions falls from 1 to `LOWEST_EPSILON`.
        interval: The number of iterations in an epoch, which ends with a report.
    """

    def __init__(self, optimizer, player, seed, start, exploration, interval):
        self.optimizer = optimizer
        self.model = optimizer.target
        self.target = self.model.copy("copy")
        self.player = player
        self.state = player.state()
        self.memory = ReplayMemory(self.state)
        self.random = numpy.random.RandomState(seed)
        self.start = start
        self.exploration = exploration
        self.interval = interval
        self.iteration = 0
        self.last_returns = collections.deque(maxlen=100)

    @property
    def epoch(self):
        """The number of epochs so far."""
        return self.iteration // self.interval

    @property
    def epoch_detail(self):
        """The number of epochs so far, with the fraction of the current one."""
        return self.iteration / self.interval

    @property
    def epsilon(self):
        """The share of random actions."""
        return max(LOWEST_EPSILON, 1 - (1 - LOWEST_EPSILON) * self.iteration / self.exploration)

    @property
    def mean_return(self):
        """The mean return of the last hundred episodes, NaN before the end of the first one."""
        return sum(self.last_returns) / len(self.last_returns) if self.last_returns else math.nan

    def get_all_optimizers(self):
        """Returns the only optimizer in a dictionary."""
        return {"main": self.optimizer}

    def update(self):
        """Plays a frame and takes a step."""
        if self.iteration == 0:
            for _ in range(self.start):
                self.play(1)
        self.play(self.epsilon)
        batch = self.memory.sample(self.random)
        self.optimizer.update(self.loss, *map(self.model.device.send, batch))
        self.iteration += 1
        if self.iteration % TARGET_INTERVAL == 0:
            self.target.copyparams(self.model)
        if self.iteration % self.interval == 0:
            chainer.report({"epsilon": self.epsilon, "episodes": self.player.episode})
            if self.last_returns:
                chainer.report({"return": self.mean_return})

    def play(self, epsilon):
        """Plays a frame, with a random action with probability epsilon."""
        if self.random.rand() < epsilon:
            action = self.random.randint(self.player.game.num_actions())
        else:
            action = self.model.best_action(self.state)
        reward, is_end = self.player.act(action)
        if is_end:
            self.last_returns.append(self.player.score)
            self.player.start(self.player.episode + 1)
        self.state = self.player.state()
        self.memory.append(action, reward, is_end, self.state)

    def loss(self, states, actions, rewards, is_end, next_states):
        """Returns the sum over the batch of Huber losses, whose gradient is the error clipped to [-1, 1]."""
        with chainer.no_backprop_mode():
            future = self.target(next_states).array.max(axis=1)
        q = F.select_item(self.model(states), actions)
        losses = F.huber_loss(q, rewards + DISCOUNT * (future * ~is_end), 1, reduce="no")
        loss = F.sum(losses)
        chainer.report({"loss": loss.array / BATCH, "q": q.array.mean()}, self.model)
        return loss

    def finalize(self):
        """Does nothing: there is nothing to close."""

    def serialize(self, serializer):
        """Saves or loads everything that the next iteration depends on."""
        self.iteration = int(serializer("iteration", self.iteration))
        self.optimizer.serialize(serializer["optimizer:main"])
        self.model.serialize(serializer["model:main"])
        self.target.serialize(serializer["target"])
        self.player.serialize(serializer["player"])
        self.memory.serialize(serializer["memory"])
        _, key, position, *_ = self.random.get_state()
        key, position = serializer("random/key", key), int(serializer("random/position", position))
        if isinstance(serializer, chainer.Deserializer):
            self.random.set_state(("MT19937", key, position))
            self.last_returns.extend(serializer("last_returns", None).tolist())
            self.state = self.player.state()
        else:
            serializer("last_returns", numpy.array(self.last_returns, "d"))


def load_game(name):
    """Returns a game of MinAtar, or an object of the class MODULE:CLASS.

    A class of your own needs the methods `seed`, `reset`, `act`, `state` and `num_actions` of `minatar.Environment`.
    A state is an array of booleans. After `seed` and `reset`, only actions may change it, so that a run can resume.

    Raises:
        ValueError: There is no such game.
    """
    module, _, attribute = name.partition(":")
    if attribute:
        sys.path.append(os.getcwd())
        try:
            game = getattr(importlib.import_module(module), attribute)()
            game.seed(0)
            game.reset()
            game.act(game.num_actions() - 1)
            if numpy.asarray(game.state()).dtype != bool:
                raise ValueError("its state must be an array of booleans")
        except Exception as error:
            raise ValueError(f"--game {name} cannot be loaded: {error}") from error
        return game
    if name not in GAMES:
        raise ValueError(f"--game must be one of {', '.join(GAMES)}, or MODULE:CLASS, got {name}")
    try:
        from minatar import Environment
    except ImportError as error:
        sys.exit(f"{error}. {NEEDS}")
    return Environment(name)


def play_episode(player, choose, longest):
    """Returns the return of an episode, and its states."""
    states = [player.state()]
    is_end = False
    while not is_end and len(states) <= longest:
        _, is_end = player.act(choose(states[-1]))
        states.append(player.state())
    return player.score, numpy.array(states)


def random_return(game, seed):
    """Returns the mean return of a random player in a hundred episodes of at most 10,000 frames."""
    random = numpy.random.RandomState(seed)
    player = Player(game, seed, 1)
    returns = []
    for episode in range(100):
        player.start(episode)
        returns.append(play_episode(player, lambda _: random.randint(game.num_actions()), 10_000)[0])
    return sum(returns) / len(returns)


def draw(states, path):
    """Draws an animation of states, with a colour for each channel."""
    n_channels = states.shape[1]
    colors = matplotlib.colormaps["nipy_spectral"](numpy.linspace(0, 0.95, n_channels + 1), bytes=True)[:, :3]
    top = (states * numpy.arange(1, n_channels + 1)[:, None, None]).max(axis=1)
    pixels = colors[top].repeat(16, axis=1).repeat(16, axis=2)
    first, *others = map(Image.fromarray, pixels)
    first.save(path, save_all=True, append_images=others, duration=100, loop=0)


def main():
    """Trains with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="@numpy", help="Chainer device, such as @cupy:0 (default: %(default)s)")
    parser.add_argument(
        "--exploration",
        type=int,
        default=50_000,
        help="frames in which the share of random actions falls to 0.1 (default: %(default)s)",
    )
    parser.add_argument(
        "--frames", type=int, default=200_000, help="total number of frames, with one step each (default: %(default)s)"
    )
    parser.add_argument(
        "--game", default="breakout", help=f"{', '.join(GAMES)}, or MODULE:CLASS (default: %(default)s)"
    )
    parser.add_argument(
        "--interval",
        type=int,
        default=5_000,
        help="frames between two lines of the log, and between two snapshots (default: %(default)s)",
    )
    parser.add_argument("--lr", type=float, help="learning rate (default: 2.5e-4, or 1e-4 with --optimizer momentum)")
    parser.add_argument("--momentum", type=float, help="momentum (default: 0, or 0.9 with --optimizer momentum)")
    parser.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default="graves",
        help="this package's RMSpropGraves, Chainer's own, RMSprop, Adam or momentum SGD (default: %(default)s)",
    )
    parser.add_argument("--out", default="result/dqn", help="folder for the results (default: %(default)s)")
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="SNAPSHOT", help="resume from SNAPSHOT, or the newest one in --out"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, game and actions (default: %(default)s)")
    parser.add_argument(
        "--start", type=int, default=5_000, help="random frames before the first step (default: %(default)s)"
    )
    args = parser.parse_args()
    for name in ("exploration", "frames", "interval"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.frames % args.interval:
        parser.error(f"--frames must be a multiple of --interval, {args.interval}, got {args.frames}")
    if args.start < 0:
        parser.error(f"--start must be at least 0, got {args.start}")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed must be in 0 ... 2**32 - 1, got {args.seed}")
    optimizer_class, hyperparameters = OPTIMIZERS[args.optimizer]
    hyperparameters = dict(hyperparameters)
    if args.lr is not None:
        if not 0 < args.lr < math.inf:
            parser.error(f"--lr must be a finite number > 0, got {args.lr}")
        hyperparameters["alpha" if args.optimizer == "adam" else "lr"] = args.lr
    if args.momentum is not None:
        if "momentum" not in hyperparameters:
            parser.error(f"--momentum: {args.optimizer} has no momentum")
        if not 0 <= args.momentum < 1:
            parser.error(f"--momentum must be in 0 <= momentum < 1, got {args.momentum}")
        hyperparameters["momentum"] = args.momentum
    try:
        device = chainer.get_device(args.device)
        device.use()
    except Exception as error:
        parser.error(f"--device {args.device} is not available: {' '.join(str(error).split())}")
    try:
        game = load_game(args.game)
    except ValueError as error:
        parser.error(str(error))

    numpy.random.seed(args.seed)
    player = Player(game, args.seed, 0)
    model = QNetwork(player.state().shape, game.num_actions())
    model.to_device(device)
    optimizer = optimizer_class(**hyperparameters).setup(model)
    updater = DQNUpdater(optimizer, player, args.seed, args.start, args.exploration, args.interval)
    names = ("exploration", "game", "interval", "optimizer", "seed", "start")
    settings = {**{name: getattr(args, name) for name in names}, **hyperparameters}
    # A snapshot holds the whole replay memory, so only the newest one is kept.
    trainer = InterruptibleTrainer(updater, args.frames // args.interval, args.out, settings, n_retains=1)

    trainer.extend(extensions.LogReport(filename="log.json"))
    columns = ["iteration", "epsilon", "main/loss", "main/q", "episodes", "return", "elapsed_time"]
    has_bar = sys.stdout.isatty()
    trainer.extend(PrintReport(columns, has_bar))
    matplotlib.use("Agg")
    trainer.extend(PlotReport(["return"], "iteration", "mean return of 100 episodes", "return.png"))
    if has_bar:  # a function as its trigger keeps the bar out of snapshots
        progress_bar = extensions.ProgressBar(update_interval=20)
        progress_bar._pbar.status_template = "Mean return of the last 100 episodes: {0.mean_return:.2f}\n"
        trainer.extend(progress_bar, trigger=lambda _: True)

    if args.resume is not None:
        try:
            trainer.resume(args.resume)
        except ValueError as error:
            parser.error(f"--resume: {error}")
    elif trainer.newest_snapshot():
        parser.error(f"--out {args.out} has the snapshot of another run: add --resume, or choose another folder")
    try:
        os.makedirs(args.out, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        parser.error(f"--out {args.out} cannot be written to: {error.strerror}")
    with chainer.using_config("type_check", False):  # type checks would take an eighth of the time
        trainer.run()

    if updater.last_returns:
        print(f"Mean return of the last hundred episodes: {updater.mean_return:.2f}")
    else:
        print("No episode has ended.")
    print(f"Mean return of a random player:           {random_return(game, args.seed):.2f}")
    score, states = play_episode(Player(game, args.seed, 2), model.best_action, LONGEST)
    draw(states, f"{args.out}/episode.gif")
    frames = f"the first {LONGEST} frames" if len(states) > LONGEST else f"{len(states) - 1} frames"
    print(f"Episode:  {args.out}/episode.gif, without random actions, return {score:g} in {frames}")
    if updater.last_returns:
        print(f"Plot:     {args.out}/return.png")
    print(f"Log:      {args.out}/log.json")
    print(f"Snapshot: {trainer.newest_snapshot()}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # before or after the training
        sys.exit(130)
