"""Names that strategies and clients agree on: records of a message, keys in them, kinds of device work.

A message carries at most one payload: `ArrayRecord({PAYLOAD: Array("uint8", (bytes,), STYPE, frame)})` under
`ARRAYS` for the CDC methods, and one float16 numpy Array under the same names for the FedAvg family, whose
changes are frames, too, where they go through a codec. Next to it stands one small ConfigRecord (down) or
MetricRecord (up; a CDC device adds a ConfigRecord, the one record that takes bytes). Strings alone, so that
the wire package does not import Flower."""

ARRAYS = "arrays"  # ArrayRecord, both ways
CONFIG = "config"  # ConfigRecord, cloud -> device; from a CDC device it holds DIGEST
METRICS = "metrics"  # MetricRecord, device -> cloud
PAYLOAD = "p"  # the one array in an ArrayRecord
STYPE = "cdc.frame"  # stype of an Array that is a frame of `cdc_flower.wire.frame`

WORK = "work"  # in CONFIG: device work as "module:function", see `clients.client_app`
ROUND = "server-round"  # in CONFIG; Flower's own name
VERSION = "version"  # in CONFIG: the newest version; in METRICS: the version the device has now
DIGEST = "digest"  # in CONFIG of a reply: 8 bytes naming the adapter the device has now
TAKEN = "taken"  # in CONFIG, with `run.receipts`: the last round in which the reply was taken; 0 = none
REFUSED = "refused"  # beside TAKEN: the last round in which it came and could not be used; 0 = none
GATE = "gate"  # in CONFIG: bytes of `cdc_flower.wire.gate`, where devices choose samples by it
LABELS = "labels"  # in CONFIG: TRUE or OWN, whose answers devices learn from
TRUE, OWN = "true", "own"
SURE = "sure"  # in CONFIG, of `released`: samples that are answered with more confidence stay
HELD = "held"  # in CONFIG of an EVALUATE message: so many values of what the device keeps are wanted
ANSWERS = "answers"  # in CONFIG of an EVALUATE reply: the texts a device answered, in the order of its stream
FULL = "full"  # in CONFIG: all weights, not the adapter
PROXIMAL_MU = "proximal-mu"  # in CONFIG; set by Flower's FedProx

DEVICE = "partition-id"  # in a QUERY reply, and Flower's own name in node_config
ADAPTERS, SHARED = "adapters", "shared"  # in node_config: all devices keep adapters in one folder
EXAMPLES = "num-examples"  # in METRICS; Flower's weight in averages
UPLOADED = "uploaded"  # samples in the frame
TOKENS = "tokens"  # vision tokens in the frame
COUNTS = "counts"  # what was computed: a list, see `cdc_flower.wire.counts`
SECONDS = "host-seconds"
