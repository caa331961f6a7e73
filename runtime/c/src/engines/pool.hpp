// Objects that serve one thread at a time, lent to any number of threads.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace stpm::core {

// Makes an object when none is idle; lending one that was made before allocates nothing.
template <class T>
class Pool {
  public:
    using Make = std::function<std::unique_ptr<T>()>;

    class Loan {
      public:
        Loan(Pool &pool, std::unique_ptr<T> object) : pool_(pool), object_(std::move(object)) {}
        Loan(const Loan &) = delete;
        Loan &operator=(const Loan &) = delete;
        ~Loan() {
            const std::lock_guard lock(pool_.mutex_);
            pool_.idle_.push_back(std::move(object_));
        }

        T &operator*() const { return *object_; }
        T *operator->() const { return object_.get(); }

      private:
        Pool &pool_;
        std::unique_ptr<T> object_;
    };

    explicit Pool(Make make) : make_(std::move(make)) {}

    Loan borrow() {
        {
            const std::lock_guard lock(mutex_);
            if (!idle_.empty()) {
                std::unique_ptr<T> object = std::move(idle_.back());
                idle_.pop_back();
                return Loan(*this, std::move(object));
            }
            // So that no return needs to allocate.
            idle_.reserve(++made_);
        }
        return Loan(*this, make_());
    }

  private:
    Make make_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<T>> idle_;
    std::size_t made_ = 0;
};

}  // namespace stpm::core
