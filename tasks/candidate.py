"""What one night's training gave: the network as it will run, and all that was measured of it.

In: the results of prepare, train, evaluate, convert and of the comparison with the champion. Out:
`Candidate`, which the gate judges, the registry releases and the report shows.
"""

from pydantic import BaseModel

from tasks.champion import AgainstRelease
from tasks.convert import ConvertedModels, TfliteModel
from tasks.evaluate import Agreement, Evaluation, agreement, load_predictions
from tasks.evaluate.camera_figures import Cameras
from tasks.evaluate.elsewhere import ElsewhereEvaluation
from tasks.prepare import PreparedData
from tasks.train import TrainedModel


class Candidate(BaseModel, frozen=True, extra="forbid"):
    """A network that might be released."""

    data: PreparedData
    trained: TrainedModel
    original: Evaluation
    """Of the float model, as trained."""
    converted: ConvertedModels
    int8: Evaluation
    """Of the file that devices would run."""
    float_files: dict[str, Evaluation] = {}
    """Of the float16 and float32 files, where they were written, by format."""
    cameras: Cameras
    """The same file on the same images, as other cameras would show them."""
    elsewhere: ElsewhereEvaluation
    """The same file on sets that nothing was learnt from, beside the test split."""
    against: tuple[AgainstRelease, ...]
    """Beside the champion and the best release so far; empty where there is no champion yet."""

    @property
    def model(self) -> TfliteModel:
        """The file that devices would run."""
        return self.converted.int8

    @property
    def points_lost(self) -> float:
        """Accuracy lost from float to INT8, in points of 100."""
        return 100 * (self.original.accuracy - self.int8.accuracy)

    @property
    def seen_share(self) -> float:
        """Test images left out because training had started from a network that knew them, 0 to 1."""
        return self.int8.left_out / (self.int8.images + self.int8.left_out)

    def agreement(self) -> Agreement:
        """How far float and INT8 say the same of the same images, from the predictions on disk."""
        return agreement(load_predictions(self.original)[0], load_predictions(self.int8)[0])
