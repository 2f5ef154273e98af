import ArgumentParser

@main
struct Lorif: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "lorif")
}
