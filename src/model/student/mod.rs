//! Students: small encoders made from a teacher's.
//!
//! What a student begins with (`init=teacher`):
//! - of the teacher's width H: the chosen layers, copied whole (of narrower feed-forward layers the neurons with the largest
//!   ‖w_in‖ · ‖w_out‖), and its pooler. Deep models keep most of their skill that way (DistilBERT: Sanh et al., 2019);
//! - of another width: random layers, N(0, `initializer_range`²); a layer's weights mean nothing in other coordinates;
//! - embeddings of the teacher's width E are copied; narrower ones are its own along their principal directions
//!   (`embeddings.rs`).
//!
//! With E = H a student is a BERT. With another E there is a projection E → H behind the embeddings, and it is an ELECTRA
//! encoder: Hugging Face's `AutoModel` reads both.

mod embeddings;
mod principal;
mod spec;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::{Map, Value};

use super::Encoder;
use crate::data::PieceCounts;
use crate::device::cpu::Cpu;
use crate::encoders;
use crate::error::{Error, Result};
use crate::tape::{ParamId, Params};
use embeddings::Reduction;
use spec::wrong;
pub use spec::{Init, StudentSpec, Take};

const WORD: &str = "embeddings.word_embeddings.weight";
const POSITION: &str = "embeddings.position_embeddings.weight";
const TYPE: &str = "embeddings.token_type_embeddings.weight";
const NORM: [&str; 2] = ["embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"];
const PROJECTION: [&str; 2] = ["embeddings_project.weight", "embeddings_project.bias"];
const LAYERS: &str = "encoder.layer.";
/// Wider heads than CUDA's attention has kernels for.
const MAX_HEAD: usize = 256;

/// A student of `teacher`, on its device. `corpus` are the pieces that it will meet: needed for `vocabulary=`, by the
/// teacher's tokenizer. `seed` makes what is random.
///
/// # Errors
/// A specification that does not fit the teacher, by its key; a vocabulary without a corpus or that cannot be pruned; a teacher
/// that is neither a BERT nor an ELECTRA.
pub fn build(teacher: &Encoder, spec: &StudentSpec, corpus: Option<&PieceCounts<'_>>, seed: u64) -> Result<Encoder> {
    teacher.params.fetch()?;
    let plan = Plan::new(teacher, spec)?;
    if corpus.is_some_and(|corpus| corpus.tokenizer().fingerprint() != teacher.tokenizer.fingerprint()) {
        return Err(Error::argument("corpus", "its pieces were counted by another tokenizer than the teacher's"));
    }
    let (tokenizer, kept) = match spec.vocabulary {
        None => (teacher.tokenizer.clone(), None),
        Some(size) => {
            let corpus = corpus.ok_or_else(|| wrong("vocabulary", "a corpus is needed to choose the pieces by"))?;
            let pruned = teacher.tokenizer.prune(corpus.counts(), size)?;
            (pruned.tokenizer, Some(pruned.kept))
        }
    };
    let tokenizer = tokenizer.with_model_max_length(plan.positions)?;
    let config = plan.config(kept.as_deref());
    let mut params = Params::default();
    let net = encoders::build(Path::new("config.json"), &config, &mut params)?;
    net.init(&mut params, seed);
    if plan.init == Init::Teacher {
        let mut copy = Copy { teacher: &teacher.params, student: &mut params, cpu: teacher.device.host() };
        copy.embeddings(&plan, kept.as_deref())?;
        if let Some(taken) = &plan.taken {
            copy.layers(taken)?;
        }
    }
    Ok(Encoder::from_parts(params, net, tokenizer, teacher.device.clone()))
}

/// A student's sizes, all of them known.
struct Plan {
    /// The teacher's configuration.
    teacher: Map<String, Value>,
    model_type: &'static str,
    /// Whether it has a pooler.
    pooler: bool,
    layers: usize,
    hidden: usize,
    heads: usize,
    intermediate: usize,
    embedding: usize,
    positions: usize,
    init: Init,
    /// The teacher's layers that it begins with.
    taken: Option<Vec<usize>>,
    /// Whether its states live in the teacher's coordinates.
    same_width: bool,
}

impl Plan {
    fn new(teacher: &Encoder, spec: &StudentSpec) -> Result<Plan> {
        let net = teacher.net();
        let own = match net.model_type() {
            "bert" => "bert",
            "electra" => "electra",
            other => {
                let what = format!("a student of a teacher of the model type '{other}'");
                return Err(Error::unsupported(what, "take a BERT or ELECTRA, or give a student's folder"));
            }
        };
        let Value::Object(config) = net.config() else {
            return Err(Error::argument("teacher", "its configuration is no object"));
        };
        let size = |key: &str| {
            let value = config.get(key).and_then(Value::as_u64).filter(|value| *value > 0);
            value.map(|value| value as usize).ok_or_else(|| Error::config("config.json", key, "is missing"))
        };
        let (theirs, theirs_embedding) = (net.hidden_size(), net.embedding_size());
        let their_heads = size("num_attention_heads")?;
        let their_intermediate = size("intermediate_size")?;
        let their_layers = size("num_hidden_layers")?;

        let hidden = spec.hidden.unwrap_or(theirs);
        let same_width = hidden == theirs;
        let copies = same_width && spec.init == Init::Teacher;
        let taken = match copies {
            true => Some(spec.taken(their_layers)?),
            false if spec.take != Take::Even && spec.init == Init::Teacher => {
                let message =
                    format!("a student of hidden={hidden} cannot take layers of width {theirs}; leave it out");
                return Err(wrong("take", message));
            }
            false => None,
        };
        let layers = taken.as_ref().map_or(spec.layers.unwrap_or(their_layers), Vec::len);

        let head = theirs / their_heads;
        let heads = match spec.heads {
            Some(heads) => heads,
            None if hidden.is_multiple_of(head) => hidden / head,
            None => {
                let message =
                    format!("give it: hidden={hidden} is no multiple of {head}, the width of a teacher's head");
                return Err(wrong("heads", message));
            }
        };
        if !hidden.is_multiple_of(heads) {
            return Err(wrong("heads", format!("{heads} heads do not divide hidden={hidden}")));
        }
        if hidden / heads > MAX_HEAD {
            let message = format!("{heads} heads of hidden={hidden} are {} wide, more than {MAX_HEAD}", hidden / heads);
            return Err(wrong("heads", message));
        }
        if copies && heads != their_heads {
            let message =
                format!("{heads} heads would cut the teacher's {their_heads} apart; leave it out, or add init=random");
            return Err(wrong("heads", message));
        }
        let intermediate = spec.intermediate.unwrap_or((their_intermediate * hidden / theirs).max(1));
        if copies && intermediate > their_intermediate {
            let message = format!(
                "{intermediate} neurons; the teacher has {their_intermediate} to take (init=random takes none)"
            );
            return Err(wrong("intermediate", message));
        }
        let most = if same_width { theirs_embedding } else { hidden };
        let embedding = spec.embedding.unwrap_or(theirs_embedding.min(most));
        if embedding > theirs_embedding && spec.init == Init::Teacher {
            let message = format!(
                "{embedding} numbers; the teacher's embeddings have {theirs_embedding} to take (init=random takes none)"
            );
            return Err(wrong("embedding", message));
        }
        let their_positions = net.max_length();
        let positions = spec.positions.unwrap_or(their_positions);
        if positions > their_positions && spec.init == Init::Teacher {
            let message = format!("{positions} tokens; the teacher takes {their_positions} (init=random takes none)");
            return Err(wrong("positions", message));
        }
        let model_type = if embedding == hidden { own } else { "electra" };
        let pooler = model_type == "bert" && net.pooler().is_some();
        let init = spec.init;
        Ok(Plan {
            teacher: config,
            model_type,
            pooler,
            layers,
            hidden,
            heads,
            intermediate,
            embedding,
            positions,
            init,
            taken,
            same_width,
        })
    }

    /// `config.json`: the teacher's with other sizes. The ids of special tokens are those of the new vocabulary, whose rows
    /// were rows `kept` of the old one.
    fn config(&self, kept: Option<&[u32]>) -> Value {
        let mut config = self.teacher.clone();
        let mut set = |key: &str, value: Value| config.insert(key.into(), value);
        set("model_type", self.model_type.into());
        set("hidden_size", self.hidden.into());
        set("num_hidden_layers", self.layers.into());
        set("num_attention_heads", self.heads.into());
        set("intermediate_size", self.intermediate.into());
        set("embedding_size", self.embedding.into());
        set("max_position_embeddings", self.positions.into());
        set("add_pooling_layer", self.pooler.into());
        if self.model_type == "bert" {
            config.remove("embedding_size");
        }
        // Where the teacher's weights are from.
        config.remove("_name_or_path");
        if let Some(kept) = kept {
            config.insert("vocab_size".into(), kept.len().into());
            for (_, id) in config.iter_mut().filter(|(key, _)| key.ends_with("_token_id")) {
                if let Some(old) = id.as_u64() {
                    *id = kept.binary_search_by_key(&old, |kept| u64::from(*kept)).ok().into();
                }
            }
        }
        Value::Object(config)
    }
}

/// What goes from a teacher's weights to a student's.
struct Copy<'a> {
    teacher: &'a Params,
    student: &'a mut Params,
    cpu: &'a Cpu,
}

impl Copy<'_> {
    fn of_teacher(&self, name: &str) -> Result<&[f32]> {
        let id = self.teacher.find(name);
        let id = id.ok_or_else(|| Error::argument("teacher", format!("it has no weights '{name}'")))?;
        Ok(self.teacher.get(id))
    }

    /// Puts numbers into a parameter of the student, as many as it has.
    fn put(&mut self, id: ParamId, values: &[f32]) -> Result<()> {
        let entry = self.student.entry(id);
        if values.len() != entry.shape.len() {
            let message = format!("{} numbers for '{}' of shape {:?}", values.len(), entry.name, entry.shape);
            return Err(Error::shape("student", message));
        }
        self.student.get_mut(id).copy_from_slice(values);
        Ok(())
    }

    fn put_named(&mut self, name: &str, values: &[f32]) -> Result<()> {
        match self.student.find(name) {
            Some(id) => self.put(id, values),
            None => Ok(()),
        }
    }

    /// Word vectors (rows `kept`), as many positions as the student has, types, normalisation; a projection if both are of
    /// one width.
    fn embeddings(&mut self, plan: &Plan, kept: Option<&[u32]>) -> Result<()> {
        let norm = [self.of_teacher(NORM[0])?.to_vec(), self.of_teacher(NORM[1])?.to_vec()];
        let width = norm[0].len();
        let word = self.of_teacher(WORD)?;
        let word = match kept {
            None => word.to_vec(),
            Some(kept) => {
                let rows = kept.iter().filter_map(|id| word.get(*id as usize * width..(*id as usize + 1) * width));
                rows.flatten().copied().collect()
            }
        };
        let position: Vec<f32> = self.of_teacher(POSITION)?.iter().take(plan.positions * width).copied().collect();
        let types = self.of_teacher(TYPE)?.to_vec();
        let own = match self.teacher.find(PROJECTION[0]) {
            Some(_) => Some([self.of_teacher(PROJECTION[0])?.to_vec(), self.of_teacher(PROJECTION[1])?.to_vec()]),
            None => None,
        };
        let tables = [(WORD, word), (POSITION, position), (TYPE, types)];
        if plan.embedding == width {
            for (name, values) in tables.iter().map(|(name, values)| (*name, values)).chain(NORM.into_iter().zip(&norm))
            {
                self.put_named(name, values)?;
            }
            if let Some(own) = own.filter(|_| plan.same_width) {
                PROJECTION.into_iter().zip(&own).try_for_each(|(name, values)| self.put_named(name, values))?;
            }
            return Ok(());
        }
        let [word, position, types] = tables.each_ref().map(|(_, values)| values.as_slice());
        let reduction = Reduction::new(self.cpu, [word, position, types], width, plan.embedding)?;
        for (name, values) in &tables {
            let reduced = reduction.table(self.cpu, values);
            self.put_named(name, &reduced)?;
        }
        if plan.same_width {
            let [gamma, beta] = norm.each_ref().map(Vec::as_slice);
            let own = own.as_ref().map(|own| own.each_ref().map(Vec::as_slice));
            let (weight, bias) = reduction.projection([gamma, beta], own);
            self.put_named(PROJECTION[0], &weight)?;
            self.put_named(PROJECTION[1], &bias)?;
        }
        Ok(())
    }

    /// The layers `taken`, in this order, and the pooler.
    fn layers(&mut self, taken: &[usize]) -> Result<()> {
        for (layer, &from) in taken.iter().enumerate() {
            let theirs = |part: &str| format!("{LAYERS}{from}.{part}");
            let kept = self.neurons(layer, [&theirs("intermediate.dense.weight"), &theirs("output.dense.weight")])?;
            let prefix = format!("{LAYERS}{layer}.");
            for id in self.student.ids().collect::<Vec<_>>() {
                let Some(part) = self.student.entry(id).name.strip_prefix(&prefix).map(str::to_string) else {
                    continue;
                };
                let values = self.of_teacher(&theirs(&part))?;
                let values = match (&kept, part.as_str()) {
                    (Some((kept, _)), "intermediate.dense.weight" | "intermediate.dense.bias") => {
                        let width = self.student.entry(id).shape.len() / kept.len();
                        kept.iter().flat_map(|row| values.iter().skip(row * width).take(width)).copied().collect()
                    }
                    (Some((kept, all)), "output.dense.weight") => {
                        let rows = values.chunks_exact(*all);
                        rows.flat_map(|row| kept.iter().filter_map(|column| row.get(*column))).copied().collect()
                    }
                    _ => values.to_vec(),
                };
                self.put(id, &values)?;
            }
        }
        for name in ["pooler.dense.weight", "pooler.dense.bias"] {
            if self.teacher.find(name).is_some() {
                let values = self.of_teacher(name)?.to_vec();
                self.put_named(name, &values)?;
            }
        }
        Ok(())
    }

    /// Which neurons of a feed-forward layer are kept, of how many; None if all are.
    fn neurons(&self, layer: usize, weights: [&str; 2]) -> Result<Option<(Vec<usize>, usize)>> {
        let own = self.student.find(&format!("{LAYERS}{layer}.intermediate.dense.bias"));
        let count = own.map_or(0, |id| self.student.entry(id).shape.len());
        let [inner, outer] = weights.map(|name| self.teacher.find(name).map(|id| (id, self.teacher.entry(id).shape)));
        let (Some((inner, shape)), Some((outer, _))) = (inner, outer) else { return Ok(None) };
        let (all, width) = (shape.rows(), shape.width());
        if count == 0 || count >= all {
            return Ok(None);
        }
        let (inner, outer) = (self.teacher.get(inner), self.teacher.get(outer));
        let square = |x: &f32| *x as f64 * *x as f64;
        let score = |neuron: usize| {
            let into: f64 = inner.iter().skip(neuron * width).take(width).map(square).sum();
            let out: f64 = outer.iter().skip(neuron).step_by(all).map(square).sum();
            into * out
        };
        let mut scored: Vec<(f64, usize)> = (0..all).map(|neuron| (score(neuron), neuron)).collect();
        // Stable: of equal ones the first.
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut kept: Vec<usize> = scored.into_iter().take(count).map(|(_, neuron)| neuron).collect();
        kept.sort_unstable();
        Ok(Some((kept, all)))
    }
}
