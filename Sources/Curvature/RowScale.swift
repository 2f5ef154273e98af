import Schema

/// Powers of two that bring the gradients of a group near 1, for products in f32.
///
/// H is quartic in the factors, so f32's 38 decades are few. The scale is taken from the first tile of each layer that is not zero; later
/// rows may be 10^15 times larger or smaller before f32 overflows or loses them. Multiplying by powers of two rounds nothing.
struct RowScale: Sendable {
    /// The common factor of all gradients of the group: stored gradient · product = scaled gradient.
    let product: Double
    /// Per layer, for the left and the right side; left · right = product.
    private let exponents: [Int: (left: Int, right: Int)]

    func sides(of layer: Int) -> (left: Double, right: Double) {
        guard let exponents = exponents[layer] else { return (product, 1) }
        return (power(exponents.left), power(exponents.right))
    }

    static func ofLayers(_ layers: [Int], source: RowSource) throws(CurvatureError) -> RowScale {
        var magnitudes: [Int: (left: Int, right: Int)] = [:]
        for layer in layers {
            for tileIndex in source.tileRowCounts.indices {
                let tile = try source.tile(tileIndex, layer: layer)
                if tile.layer.rank == nil {
                    guard let dense = exponent(tile.dense) else { continue }
                    magnitudes[layer] = (dense, 0)
                } else {
                    guard let left = exponent(tile.left), let right = exponent(tile.right) else { continue }
                    magnitudes[layer] = (left, right)
                }
                break
            }
        }
        // One product for the whole group: the layers' relative size is part of H.
        let total = magnitudes.values.map { -($0.left + $0.right) }.min() ?? 0
        let exponents = magnitudes.mapValues { magnitude in
            (left: total + magnitude.right, right: -magnitude.right)
        }
        return RowScale(product: power(total), exponents: exponents)
    }

    private static func exponent(_ values: [Float]) -> Int? {
        var largest: Float = 0
        for value in values { largest = max(largest, abs(value)) }
        return largest > 0 ? Int(largest.exponent) : nil
    }
}

private func power(_ exponent: Int) -> Double { Double(sign: .plus, exponent: exponent, significand: 1) }
