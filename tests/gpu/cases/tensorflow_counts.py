"""Replies that TensorFlow waits for."""

from harness import Skip, figure, need, replies_of

tf = need("tensorflow")
if not tf.config.list_physical_devices("GPU"):
    raise Skip("TensorFlow sees no GPU")

# libvgpu names each call that waits.
NAMED = {"VGPU_LOG": "2", "TF_CPP_MIN_LOG_LEVEL": "2"}


def trained():
    """A training step as one graph; its loss stays on the device."""
    dense = tf.keras.layers.Dense
    model = tf.keras.Sequential([dense(128, activation="relu"), dense(10)])
    with tf.device("/CPU:0"):
        x, y = tf.random.normal((64, 64)), tf.random.uniform((64,), 0, 10, tf.int64)
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf.keras.optimizers.SGD(0.01)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    for _ in range(5):
        step()
    return step


@figure(unit="replies a step", most=0, must=True, env=NAMED)
def train_step():
    step = trained()
    return replies_of(step, 20)


@figure(unit="replies a step", most=2, must=True, env=NAMED)
def train_step_with_its_loss():
    step = trained()
    return replies_of(lambda: step().numpy(), 20)
