//! Softmax and cross-entropy on a CUDA device: kernels/cross_entropy.cu.

use super::{Problem, Reduction};
use crate::device::cuda::{Argument, Cuda, Launch, Memory, Span, size};
use crate::error::Result;
use crate::tape::Slot;

/// The op's lists on the device, those of all rows.
pub struct Lists {
    rows: usize,
    targets: Memory,
    groups: Option<std::sync::Arc<Memory>>,
    class_weights: Option<Memory>,
    sample_weights: Option<Memory>,
}

impl Lists {
    /// The lists of a problem of all rows.
    pub fn new(cuda: &Cuda, problem: &Problem<'_>) -> Result<Lists> {
        let weights = |weights: Option<&[f32]>| weights.map(|weights| cuda.upload(weights)).transpose();
        Ok(Lists {
            rows: problem.targets.len(),
            targets: cuda.upload(problem.targets)?,
            groups: problem.groups.map(|groups| cuda.list(groups)).transpose()?,
            class_weights: weights(problem.class_weights)?,
            sample_weights: weights(problem.sample_weights)?,
        })
    }

    /// A list of the rows, from the problem's first one on. (A target has as many bytes as a float.)
    fn rows(&self, list: &Memory, problem: &Problem<'_>) -> Argument {
        Argument::or_empty(list.floats(self.rows).part(problem.first..self.rows))
    }

    fn targets(&self, problem: &Problem<'_>) -> Argument {
        self.rows(&self.targets, problem)
    }

    fn groups(&self) -> Argument {
        Argument::or_null(self.groups.as_deref())
    }

    /// Weights of classes, and of rows.
    fn weights(&self, problem: &Problem<'_>) -> [Argument; 2] {
        let of_rows = self.sample_weights.as_ref().map(|weights| self.rows(weights, problem));
        [Argument::or_null(self.class_weights.as_ref()), of_rows.unwrap_or(Argument::or_null(None))]
    }
}

impl Problem<'_> {
    /// A launch for the rows, and their number and width as arguments.
    fn rows(&self) -> Result<(Launch, [Argument; 2])> {
        let rows = self.targets.len();
        let longest = (0..rows).map(|row| self.range(row).len()).max().unwrap_or(0);
        let sizes = [size("cross_entropy", rows)?, size("cross_entropy", self.width)?];
        // A warp a row while its lanes have no more than a few packs.
        let block = if longest <= 2048 { [32, 8] } else { [256, 1] };
        Ok((Launch::rows(rows, block), sizes))
    }
}

/// Fills the statistics of the problem's rows.
pub fn forward(cuda: &Cuda, problem: Problem<'_>, lists: &Lists, statistics: Span<'_>) -> Result<()> {
    let (launch, [rows, width]) = problem.rows()?;
    let [class_weights, _] = lists.weights(&problem);
    let arguments = [
        statistics.into(),
        problem.logits.span.into(),
        lists.targets(&problem),
        lists.groups(),
        class_weights,
        rows,
        width,
        problem.smoothing.into(),
    ];
    cuda.launch(("cross_entropy", problem.logits.span.dtype()), "cross_entropy_forward", launch, &arguments)
}

/// The loss, and what it was divided by, an f64, from the statistics of all rows.
pub fn reduce(
    cuda: &Cuda,
    problem: Problem<'_>,
    lists: &Lists,
    reduction: Reduction,
    statistics: Span<'_>,
    [loss, divisor]: [Span<'_>; 2],
) -> Result<()> {
    let (_, [rows, _]) = problem.rows()?;
    let [class_weights, sample_weights] = lists.weights(&problem);
    let reduction = match reduction {
        Reduction::Mean => 0i32,
        Reduction::RowMean => 1,
        Reduction::Sum => 2,
    };
    let arguments = [
        loss.into(),
        divisor.into(),
        Argument::or_empty(statistics),
        lists.targets(&problem),
        class_weights,
        sample_weights,
        rows,
        reduction.into(),
    ];
    // More threads where there are more rows: each of them is a chain of additions.
    let threads = if problem.targets.len() > 1024 { 1024 } else { 256 };
    cuda.launch(
        ("cross_entropy", problem.logits.span.dtype()),
        "cross_entropy_reduce",
        Launch::new([1, 1, 1], [threads, 1, 1]),
        &arguments,
    )
}

/// The gradient of the logits, which may take their place.
pub fn backward(
    cuda: &Cuda,
    problem: Problem<'_>,
    lists: &Lists,
    [statistics, divisor, upstream]: [Span<'_>; 3],
    slot: &Slot<'_>,
) -> Result<()> {
    let (launch, [rows, width]) = problem.rows()?;
    let [class_weights, sample_weights] = lists.weights(&problem);
    let arguments = [
        slot.span.into(),
        slot.accumulate.into(),
        upstream.into(),
        divisor.into(),
        statistics.into(),
        problem.logits.span.into(),
        lists.targets(&problem),
        lists.groups(),
        class_weights,
        sample_weights,
        rows,
        width,
        problem.smoothing.into(),
    ];
    cuda.launch(("cross_entropy", problem.logits.span.dtype()), "cross_entropy_backward", launch, &arguments)
}
