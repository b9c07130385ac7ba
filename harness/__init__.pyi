from harness.api import Results as Results
from harness.api import compare as compare
from harness.api import load_model as load_model
from harness.api import load_results as load_results
from harness.api import plot as plot
from harness.api import run as run
from harness.data.tasks import Task as Task
from harness.errors import HarnessError as HarnessError
from harness.evaluation.policies import Policy as Policy
from harness.evaluation.trace import Trace as Trace
from harness.methods.protocol import Method as Method
from harness.models.backbones import Backbone as Backbone
from harness.models.multi_exit import MultiExitModel as MultiExitModel
from harness.records import RunRecord as RunRecord

__version__: str
