//! The variables of a session.

use std::collections::BTreeMap;

use super::{Session, Store};
use crate::{Error, Result, Tensor, TensorType, gpu};

impl Session {
    pub(super) fn create(&mut self, name: &str, value: &Tensor) -> Result<()> {
        match &mut self.store {
            Store::Cpu(values) => {
                values.insert(name.to_owned(), value.to_reference());
            }
            Store::Gpu(gpu, variables) => {
                variables.create(gpu, name, value, crate::plan::padded(value.ty().bytes()))?
            }
        }
        self.types.insert(name.to_owned(), value.ty());
        Ok(())
    }

    /// The names of the variables, sorted.
    pub fn names(&self) -> Vec<String> {
        self.types.keys().cloned().collect()
    }

    fn type_of(&self, name: &str) -> Result<&TensorType> {
        self.types.get(name).ok_or_else(|| {
            let known = if self.types.is_empty() { "none yet".to_owned() } else { self.names().join(", ") };
            Error::Input(format!(
                "there is no variable `{name}`; compile a graph that declares it first. Variables: {known}"
            ))
        })
    }

    /// The type of a variable.
    pub fn variable_type(&self, name: &str) -> Option<&TensorType> {
        self.types.get(name)
    }

    /// A variable's value.
    ///
    /// # Errors
    /// If there is no such variable (the message lists the existing ones).
    pub fn get(&self, name: &str) -> Result<Tensor> {
        gpu::block_on(self.get_async(name))
    }

    /// [`Session::get`] for use with an async executor.
    ///
    /// # Errors
    /// As [`Session::get`].
    pub async fn get_async(&self, name: &str) -> Result<Tensor> {
        let ty = self.type_of(name)?;
        match &self.store {
            Store::Cpu(values) => {
                Ok(values.get(name).map_or_else(|| Tensor::zeros(ty), |value| value.clone().stored_as(ty.dtype)))
            }
            Store::Gpu(gpu, variables) => Ok(variables.get(gpu, name).await?.unwrap_or_else(|| Tensor::zeros(ty))),
        }
    }

    /// The values of several variables, read back together.
    pub(crate) fn get_all(&self, names: Vec<String>) -> Result<BTreeMap<String, Tensor>> {
        gpu::block_on(self.get_all_async(names))
    }

    /// The values of several variables, read back together, for use with an async executor.
    ///
    /// # Errors
    /// As [`Session::get`].
    pub async fn get_all_async(&self, names: Vec<String>) -> Result<BTreeMap<String, Tensor>> {
        match &self.store {
            Store::Cpu(_) => names.into_iter().map(|name| Ok((name.clone(), self.get(&name)?))).collect(),
            Store::Gpu(gpu, variables) => {
                names.iter().try_for_each(|name| self.type_of(name).map(drop))?;
                let values = variables.get_all(gpu, &names).await?;
                Ok(names.into_iter().zip(values).collect())
            }
        }
    }

    /// Sets a variable. Floats may have either precision.
    ///
    /// # Errors
    /// If there is no such variable, or the value has another type.
    pub fn set(&mut self, name: &str, value: &Tensor) -> Result<()> {
        self.check_value(name, value)?;
        match &mut self.store {
            Store::Cpu(values) => {
                values.insert(name.to_owned(), value.to_reference());
                Ok(())
            }
            Store::Gpu(gpu, variables) => variables.set(gpu, name, value),
        }
    }

    /// Sets several variables together.
    pub(crate) fn set_all(&mut self, new: &[(&str, &Tensor)]) -> Result<()> {
        new.iter().try_for_each(|(name, value)| self.check_value(name, value))?;
        match &mut self.store {
            Store::Cpu(values) => {
                values.extend(new.iter().map(|(name, value)| ((*name).to_owned(), value.to_reference())));
                Ok(())
            }
            Store::Gpu(gpu, variables) => variables.set_all(gpu, new),
        }
    }

    fn check_value(&self, name: &str, value: &Tensor) -> Result<()> {
        let ty = self.type_of(name)?;
        if value.ty() != *ty {
            let new = value.ty();
            return Err(Error::Input(format!(
                "variable `{name}` is {ty}, but the new value is {new}; convert it first"
            )));
        }
        Ok(())
    }

    /// Device memory used by variables, in bytes.
    pub fn variable_bytes(&self) -> u64 {
        match &self.store {
            Store::Cpu(values) => values.values().map(|v| v.numel() as u64 * 8).sum(),
            Store::Gpu(_, variables) => variables.bytes(),
        }
    }
}
