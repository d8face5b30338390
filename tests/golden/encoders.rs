//! The family `encoders`: a folder as Hugging Face saves it, and what its model computes. An architecture that the
//! registry does not know is not run.
//!
//! Compared: the embedding block's output, the last hidden states, a scalar loss, every gradient (also of the word
//! vectors and of the embedding block's output), the pooler and its gradients, and a single sequence. Beyond the files:
//! a sequence alone, an inference tape, and an entry at the embedding output give the same bits; a parameter that the
//! loss does not depend on gets no gradient; the first tokens alone have the stored pooler output and its gradients.

use std::collections::BTreeSet;

use manyhead::encoders::{self, EncoderNet};
use manyhead::nn::PackedBatch;
use manyhead::tape::{Gradients, Params, Tape, TapeMemory};
use manyhead::{Device, Error};
use serde_json::Value;

use crate::Runner;
use crate::case::{Case, Gradient, Report, device};
use crate::engine::{batch, bits, dot, gradient, pooled, text_of};

const PACKED: [&str; 4] = ["packed_input_ids", "packed_token_type_ids", "packed_positions", "cu_seqlens"];

pub fn runner(case: &Case) -> Option<Runner> {
    is_known(case).then_some(run)
}

/// Whether the registry knows the architecture. Anything else that is wrong with a case is for [`run`] to say.
fn is_known(case: &Case) -> bool {
    let path = encoders::config_path(&case.dir);
    let config = case.read_json("config.json").unwrap_or(Value::Null);
    match encoders::build(&path, &config, &mut Params::default()) {
        Err(Error::Config { key, message, .. }) => key != "model_type" || !message.contains("is not implemented"),
        _ => true,
    }
}

fn run(case: &Case, report: &mut Report) -> Result<(), String> {
    let device = device().map_err(text_of)?;
    let mut params = Params::default();
    let loaded = encoders::load(&case.dir, &mut params, device.host()).map_err(text_of)?;
    report.exact("unexpected tensors", &loaded.unexpected, &[]);
    let model = Model { net: loaded.net, params, device };
    let inputs = case.tensors("inputs.safetensors")?;
    let batch_of_all = batch(&inputs, PACKED)?;
    model.values_and_gradients(case, report, &batch_of_all, inputs.f32("R")?)?;
    model.same_bits_alone(report, &batch_of_all)?;
    model.single(case, report)
}

struct Model {
    net: Box<dyn EncoderNet>,
    params: Params,
    device: Device,
}

/// What a forward pass gives: `[T, E]`, `[T, H]`, `[B, H]`.
struct Outputs {
    embedded: Vec<f32>,
    last_hidden: Vec<f32>,
    pooled: Option<Vec<f32>>,
}

impl Model {
    /// A forward pass without recording, from the embedding block's output if it is given.
    fn infer(&self, batch: &PackedBatch, embedded: Option<&[f32]>) -> Result<Outputs, String> {
        let mut tape = Tape::inference(&self.params, &self.device, TapeMemory::default());
        let embedded = match embedded {
            Some(values) => tape.leaf_from([batch.tokens(), values.len() / batch.tokens()], values),
            None => self.net.embed(&mut tape, batch, None),
        };
        let embedded = embedded.map_err(text_of)?;
        let before = tape.view(embedded).map_err(text_of)?.data.to_vec();
        let hidden = self.net.encode(&mut tape, batch, embedded).map_err(text_of)?;
        let last_hidden = tape.view(hidden).map_err(text_of)?.data.to_vec();
        let pooled = match self.net.pooler() {
            Some(pooler) => {
                let pooled = pooled(&mut tape, pooler, hidden, batch)?;
                Some(tape.view(pooled).map_err(text_of)?.data.to_vec())
            }
            None => None,
        };
        Ok(Outputs { embedded: before, last_hidden, pooled })
    }

    fn values_and_gradients(
        &self,
        case: &Case,
        report: &mut Report,
        batch: &PackedBatch,
        r: &[f32],
    ) -> Result<(), String> {
        let (atol, rtol) = (case.atol()?, case.rtol()?);
        let expected = case.tensors("expected.safetensors")?;
        let width = expected.shape("grad.word_embedding")?.last().copied().unwrap_or(0);

        let mut tape = Tape::recording(&self.params, &self.device, TapeMemory::default(), None);
        tape.check_slots(true);
        let delta = tape.leaf_from([batch.tokens(), width], &vec![0.0; batch.tokens() * width]).map_err(text_of)?;
        let embedded = self.net.embed(&mut tape, batch, Some(delta)).map_err(text_of)?;
        let hidden = self.net.encode(&mut tape, batch, embedded).map_err(text_of)?;
        let view = |var| tape.view(var).map(|view| view.data.to_vec()).map_err(text_of);
        let (block, last_hidden) = (view(embedded)?, view(hidden)?);
        report.close("embedding_block", &block, expected.f32("embedding_block")?, atol, rtol);
        if expected.has("embedding_projected") {
            let projected = self.net.project(&mut tape, embedded).map_err(text_of)?;
            let projected = tape.view(projected).map_err(text_of)?.data;
            report.close("embedding_projected", projected, expected.f32("embedding_projected")?, atol, rtol);
        }
        report.close("last_hidden", &last_hidden, expected.f32("last_hidden")?, atol, rtol);
        report.scalar("loss", dot(&last_hidden, r), expected.scalar("loss")?, atol, rtol);

        // With and without recording, from the ids and from the embedding block's output: the same bits.
        let whole = self.infer(batch, None)?;
        report.exact("embedding_block without recording, bits", &bits(&whole.embedded), &bits(&block));
        report.exact("last_hidden without recording, bits", &bits(&whole.last_hidden), &bits(&last_hidden));
        let entered = self.infer(batch, Some(&block))?;
        report.exact("last_hidden from the embedding block, bits", &bits(&entered.last_hidden), &bits(&last_hidden));

        let mut gradients = Gradients::new(&self.params);
        let leaves = tape.backward_from(&[(hidden, r)], Some(&mut gradients), &[embedded, delta]).map_err(text_of)?;
        let stored = case.tensors("grads.safetensors")?;
        let mut compared: Vec<Gradient> = vec![
            ("grad.embedding_block", leaves[0].data(), expected.f32("grad.embedding_block")?),
            ("grad.word_embedding", leaves[1].data(), expected.f32("grad.word_embedding")?),
        ];
        for name in stored.names() {
            let parameter = name.strip_prefix("grad.").unwrap_or(name);
            compared.push((name, gradient(&self.params, &gradients, parameter)?, stored.f32(name)?));
        }
        self.untouched(case, report, &gradients, stored.names())?;

        // The leaves alone, without any weight gradient: the same numbers.
        let alone = tape.backward_from(&[(hidden, r)], None, &[embedded, delta]).map_err(text_of)?;
        for (index, name) in ["embedding_block", "word_embedding"].into_iter().enumerate() {
            let name = format!("grad.{name} without weight gradients, bits");
            report.exact(&name, &bits(alone[index].data()), &bits(leaves[index].data()));
        }

        // The second loss, on the pooler's output.
        report.exact("has a pooler", &[self.net.pooler().is_some()], &[expected.has("pooler_output")]);
        let Some(pooler) = self.net.pooler() else {
            report.gradients(&compared);
            return Ok(());
        };
        let pooled = pooled(&mut tape, pooler, hidden, batch)?;
        let values = tape.view(pooled).map_err(text_of)?.data.to_vec();
        report.close("pooler_output", &values, expected.f32("pooler_output")?, atol, rtol);
        report.exact("pooler_output without recording, bits", &bits(&whole.pooled.unwrap_or_default()), &bits(&values));
        let first = self.net.encode_first(&mut tape, batch, embedded).map_err(text_of)?;
        let of_first = pooler.forward(&mut tape, first).map_err(text_of)?;
        let values_of_first = tape.view(of_first).map_err(text_of)?.data;
        let name = "pooler_output of the first tokens alone";
        report.close(name, values_of_first, expected.f32("pooler_output")?, atol, rtol);
        if !case.exists("grads_pooler.safetensors") {
            report.gradients(&compared);
            return Ok(());
        }
        let second = case.tensors("grads_pooler.safetensors")?;
        let r = second.f32("R_pooler")?;
        report.scalar("loss_pooler", dot(&values, r), second.scalar("loss_pooler")?, atol, rtol);
        let mut gradients = Gradients::new(&self.params);
        let leaves = tape.backward_from(&[(pooled, r)], Some(&mut gradients), &[hidden]).map_err(text_of)?;
        compared.push(("grad.last_hidden", leaves[0].data(), second.f32("grad.last_hidden")?));
        for (parameter, tensor) in second.with_prefix("grad.").filter(|(name, _)| *name != "last_hidden") {
            compared.push((parameter, gradient(&self.params, &gradients, parameter)?, tensor.f32()?));
        }
        // The same loss through the first tokens alone: the same gradients of the same parameters.
        let mut alone = Gradients::new(&self.params);
        tape.backward_from(&[(of_first, r)], Some(&mut alone), &[]).map_err(text_of)?;
        for (parameter, tensor) in second.with_prefix("grad.").filter(|(name, _)| *name != "last_hidden") {
            compared.push((parameter, gradient(&self.params, &alone, parameter)?, tensor.f32()?));
        }
        let reached = |gradients: &Gradients| self.params.ids().map(|id| gradients.touched(id)).collect::<Vec<_>>();
        report.exact("parameters that the first tokens reach", &reached(&alone), &reached(&gradients));
        report.gradients(&compared);
        Ok(())
    }

    /// Exactly the parameters with a stored gradient were reached, and exactly the listed others were not.
    fn untouched<'a>(
        &self,
        case: &Case,
        report: &mut Report,
        gradients: &Gradients,
        stored: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let names = |touched: bool| -> BTreeSet<String> {
            let ids = self.params.ids().filter(|id| gradients.touched(*id) == touched);
            ids.map(|id| self.params.entry(id).name.clone()).collect()
        };
        let listed = case.json["parameters_without_gradient_from_hidden_loss"].as_array();
        let listed = listed.ok_or("there is no list of parameters without gradient")?;
        let listed: BTreeSet<String> = listed.iter().filter_map(|name| name.as_str().map(String::from)).collect();
        let stored: BTreeSet<String> = stored.map(|name| name.strip_prefix("grad.").unwrap_or(name).into()).collect();
        // A tied parameter has one entry and may be stored under each of its names.
        let entry_of = |name: &String| match self.params.find(name) {
            Some(id) => self.params.entry(id).name.clone(),
            None => name.clone(),
        };
        let stored: BTreeSet<String> = stored.iter().map(entry_of).collect();
        report.exact("parameters with a gradient", &Vec::from_iter(names(true)), &Vec::from_iter(stored));
        report.exact("parameters without a gradient", &Vec::from_iter(names(false)), &Vec::from_iter(listed));
        Ok(())
    }

    /// Each sequence alone gives the bits that it has in the packed batch.
    fn same_bits_alone(&self, report: &mut Report, batch: &PackedBatch) -> Result<(), String> {
        let whole = self.infer(batch, None)?;
        let rows = |values: &[f32], rows: usize, from: usize, to: usize| {
            let width = values.len() / rows;
            bits(&values[from * width..to * width])
        };
        for (index, pair) in batch.cu_seqlens.windows(2).enumerate() {
            let (from, to) = (pair[0] as usize, pair[1] as usize);
            let part = PackedBatch {
                ids: batch.ids[from..to].into(),
                type_ids: batch.type_ids[from..to].into(),
                positions: batch.positions[from..to].into(),
                cu_seqlens: [0, pair[1] - pair[0]].into(),
            };
            let alone = self.infer(&part, None)?;
            let packed = rows(&whole.last_hidden, batch.tokens(), from, to);
            report.exact(&format!("sequence {index} alone, bits"), &bits(&alone.last_hidden), &packed);
            if let (Some(alone), Some(whole)) = (&alone.pooled, &whole.pooled) {
                let packed = rows(whole, batch.sequences(), index, index + 1);
                report.exact(&format!("pooled sequence {index} alone, bits"), &bits(alone), &packed);
            }
        }
        Ok(())
    }

    fn single(&self, case: &Case, report: &mut Report) -> Result<(), String> {
        if !case.exists("single.safetensors") {
            return Ok(());
        }
        let (atol, rtol) = (case.atol()?, case.rtol()?);
        let single = case.tensors("single.safetensors")?;
        let outputs = self.infer(&batch(&single, PACKED)?, None)?;
        report.close("single: last_hidden", &outputs.last_hidden, single.f32("last_hidden")?, atol, rtol);
        if single.has("pooler_output") {
            let pooled = outputs.pooled.ok_or("the encoder has no pooler, the single sequence has its output")?;
            report.close("single: pooler_output", &pooled, single.f32("pooler_output")?, atol, rtol);
        }
        Ok(())
    }
}
