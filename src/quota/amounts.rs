//! Amounts of everything that a quota counts, and the words for them.
//!
//! Owns: what one service needs by its spec, and the arithmetic. Must never: decide who gets what.

use std::fmt;

use crate::api::{
    Quantity,
    tenant_container::TenantContainerSpec,
    tenant_quota::{QuotaAmounts, QuotaLimits},
};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// Services that are not stopped.
    Containers,
    /// Replicas.
    Replicas,
    /// CPU, in thousandths of a core.
    Cpu,
    /// Memory, in bytes.
    Memory,
    /// Disks, in bytes.
    Disk,
    /// GPUs.
    Gpu,
    /// Vectors.
    Vectors,
}

impl Dimension {
    /// All of them, in the order in which people read them.
    pub const ALL: [Self; 7] =
        [Self::Containers, Self::Replicas, Self::Cpu, Self::Memory, Self::Disk, Self::Gpu, Self::Vectors];

    /// The word for it in specs, records and columns.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Replicas => "replicas",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Gpu => "gpu",
            Self::Vectors => "vectors",
        }
    }

    /// An amount of it in words: `2 cpu`, `1 container`.
    pub fn words(self, amount: i64) -> String {
        let noun = match (self, amount) {
            (Self::Containers, 1) => "container",
            (Self::Containers, _) => "containers",
            (Self::Replicas, 1) => "replica",
            (Self::Replicas, _) => "replicas",
            (Self::Cpu, _) => "cpu",
            (Self::Memory, _) => "memory",
            (Self::Disk, _) => "disk",
            (Self::Gpu, _) => "gpu",
            (Self::Vectors, 1) => "vector",
            (Self::Vectors, _) => "vectors",
        };
        format!("{} {noun}", self.number(amount))
    }

    /// An amount of it as people write it: `500m`, `4Gi`.
    pub fn number(self, amount: i64) -> String {
        match self {
            Self::Cpu if amount % 1000 == 0 => (amount / 1000).to_string(),
            Self::Cpu => format!("{amount}m"),
            Self::Memory | Self::Disk => bytes(amount),
            Self::Containers | Self::Replicas | Self::Gpu | Self::Vectors => amount.to_string(),
        }
    }
}

/// In the largest unit that says it exactly; binary ones before decimal ones.
fn bytes(amount: i64) -> String {
    let units = [
        ("Ti", 1 << 40),
        ("Gi", 1 << 30),
        ("Mi", 1 << 20),
        ("Ki", 1 << 10),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("k", 1_000),
    ];
    let exact = units.into_iter().find(|(_, unit)| amount != 0 && amount % unit == 0);
    exact.map_or_else(|| amount.to_string(), |(name, unit)| format!("{}{name}", amount / unit))
}

/// So much of each. Sums saturate: more than anything has is more than any limit.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Amounts([i64; 7]);

impl Amounts {
    /// Nothing.
    pub const ZERO: Self = Self([0; 7]);

    /// What a service needs with so many replicas.
    pub fn of(spec: &TenantContainerSpec, replicas: i32) -> Self {
        let (each, count) = (&spec.resources, i64::from(replicas));
        let declared = spec.vectors.as_ref().and_then(|vectors| vectors.count);
        let indexed = || spec.indexes.iter().filter_map(|index| index.count).fold(0, i64::saturating_add);
        Self::by(|dimension| match dimension {
            Dimension::Containers => 1,
            Dimension::Replicas => count,
            Dimension::Cpu => each.cpu.millis().saturating_mul(count),
            Dimension::Memory => each.memory.units().saturating_mul(count),
            Dimension::Disk => each.disk.as_ref().map_or(0, Quantity::units).saturating_mul(count),
            Dimension::Gpu => i64::from(each.gpu).saturating_mul(count),
            Dimension::Vectors => declared.unwrap_or_else(indexed),
        })
    }

    /// Disks alone: what a stopped service keeps, and what outlives one.
    pub fn of_disks(bytes: i64) -> Self {
        Self::ZERO.with(Dimension::Disk, bytes)
    }

    /// So much of each dimension.
    pub fn by(amount: impl Fn(Dimension) -> i64) -> Self {
        Self(Dimension::ALL.map(amount))
    }

    /// How much of one.
    pub fn get(&self, dimension: Dimension) -> i64 {
        self.0[dimension as usize]
    }

    /// The same with another amount of one.
    #[must_use]
    pub fn with(mut self, dimension: Dimension, amount: i64) -> Self {
        self.0[dimension as usize] = amount;
        self
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self::by(|dimension| self.get(dimension).saturating_add(other.get(dimension)))
    }

    /// What is missing from `other` to make this; nothing where it has more.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        Self::by(|dimension| self.get(dimension).saturating_sub(other.get(dimension)).max(0))
    }

    /// The larger of each.
    #[must_use]
    pub fn or_more(&self, other: &Self) -> Self {
        Self::by(|dimension| self.get(dimension).max(other.get(dimension)))
    }

    /// The smaller of each.
    #[must_use]
    pub fn at_most(&self, other: &Self) -> Self {
        Self::by(|dimension| self.get(dimension).min(other.get(dimension)))
    }

    /// Whether there is enough of each for `other`.
    pub fn covers(&self, other: &Self) -> bool {
        other.beyond(self) == Self::ZERO
    }
}

impl fmt::Debug for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = Dimension::ALL.into_iter().filter(|dimension| self.get(*dimension) != 0);
        f.debug_list().entries(some.map(|dimension| dimension.words(self.get(dimension)))).finish()
    }
}

impl From<&QuotaAmounts> for Amounts {
    fn from(amounts: &QuotaAmounts) -> Self {
        let QuotaAmounts { containers, replicas, cpu, memory, disk, gpu, vectors } = amounts;
        Self::by(|dimension| match dimension {
            Dimension::Containers => containers.unwrap_or(0),
            Dimension::Replicas => replicas.unwrap_or(0),
            Dimension::Cpu => cpu.as_ref().map_or(0, Quantity::millis),
            Dimension::Memory => memory.as_ref().map_or(0, Quantity::units),
            Dimension::Disk => disk.as_ref().map_or(0, Quantity::units),
            Dimension::Gpu => gpu.unwrap_or(0),
            Dimension::Vectors => vectors.unwrap_or(0),
        })
    }
}

impl From<&Amounts> for QuotaAmounts {
    fn from(amounts: &Amounts) -> Self {
        let count = |dimension| Some(amounts.get(dimension)).filter(|amount| *amount != 0);
        let quantity = |dimension: Dimension| dimension.number(count(dimension)?).parse().ok();
        Self {
            containers: count(Dimension::Containers),
            replicas: count(Dimension::Replicas),
            cpu: quantity(Dimension::Cpu),
            memory: quantity(Dimension::Memory),
            disk: quantity(Dimension::Disk),
            gpu: count(Dimension::Gpu),
            vectors: count(Dimension::Vectors),
        }
    }
}

/// The most of each that may be reserved; none where that is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits([Option<i64>; 7]);

impl Limits {
    /// The limit of one.
    pub fn get(&self, dimension: Dimension) -> Option<i64> {
        self.0[dimension as usize]
    }
}

impl From<&QuotaLimits> for Limits {
    fn from(limits: &QuotaLimits) -> Self {
        let QuotaLimits { containers, replicas, cpu, memory, disk, gpu, vectors } = limits;
        Self(Dimension::ALL.map(|dimension| match dimension {
            Dimension::Containers => *containers,
            Dimension::Replicas => *replicas,
            Dimension::Cpu => cpu.as_ref().map(Quantity::millis),
            Dimension::Memory => memory.as_ref().map(Quantity::units),
            Dimension::Disk => disk.as_ref().map(Quantity::units),
            Dimension::Gpu => *gpu,
            Dimension::Vectors => *vectors,
        }))
    }
}
