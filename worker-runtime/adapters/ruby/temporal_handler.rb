# Activities in Ruby for the worker runtime, which keeps this process and gives it one task at a time.
require "json"

module TemporalHandler
  IN, OUT, TASKS = $stdin.dup.set_encoding("UTF-8"), $stdout.dup, Queue.new
  $stdin.reopen(File::NULL) # a child process must not take what the runtime sends,
  $stdout.reopen($stderr).sync = OUT.sync = true # nor print between the answers
  HANDLERS = Hash.new { |h, k| h.fetch("*") { raise Failure.new("no handler for #{k}", type: "UnknownActivityType") } }

  class Cancelled < Exception; end # no StandardError: `rescue` in a handler has to let it through

  class Failure < StandardError
    attr_reader :fields

    def initialize(message, type: nil, non_retryable: nil, next_retry_delay: nil, details: nil, benign: nil)
      super(message)
      @fields = { type:, details:, benign:, nonRetryable: non_retryable, nextRetryDelay: next_retry_delay }.compact
    end
  end

  class Task < Hash # as the runtime sent it: "type", "args", "info", and "heartbeat" if an earlier attempt left one
    def heartbeat(details = nil)
      answer(heartbeat: details)
      raise Cancelled, self["cancel"] if key?("cancel")
    end

    def answer(**message)
      OUT.puts(JSON.generate({ id: self["id"], **message })) if message.key?(:failure) || TemporalHandler.plain(message)
    rescue StandardError, SystemStackError => error
      raise Failure.new("not JSON: #{error.message}", type: "HandlerOutputInvalid")
    end
  end

  def self.activity(type, &handler) = HANDLERS.store(type, handler)

  def self.plain(v) = [String, Symbol, Numeric, true, false, nil].any? { _1 === v } || # JSON.generate takes any object
    (Hash === v || Array === v) && v.to_a.flatten.all? { plain(_1) } || raise(TypeError, "no JSON type: #{v.class}")

  def self.receive(message)
    return TASKS << (@task = Task[message]) if message.key?("type")
    @task.update(message) if @task && @task["id"] == message["id"]
  end

  def self.run
    Thread.new { IN.each_line { receive(JSON.parse(_1, max_nesting: 0)) }; TASKS.close }.abort_on_exception = true
    loop do
      task = TASKS.pop or return
      task.answer(result: HANDLERS[task["type"]].call(task, *task["args"]))
    rescue Cancelled then task.answer(cancel: true)
    rescue StandardError, ScriptError, SystemStackError => e
      failure = { type: e.class.name, stackTrace: e.backtrace.first(50) * "\n" }.merge(Failure === e ? e.fields : {})
      task.answer(failure: { message: e.message.encode("UTF-8", invalid: :replace, undef: :replace), **failure })
    end
  end
end
